//go:build cgo && linux

#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the libraries ----------------------------------------------------------

// Every function of rdma-core that is not an inline one in its headers, with the library and the version of its ABI.
#define FUNCTIONS(F) \
	F(verbs, "IBVERBS_1.1", ibv_get_device_name) \
	F(verbs, "IBVERBS_1.1", ibv_query_device) \
	F(verbs, "IBVERBS_1.1", ibv_query_port) \
	F(verbs, "IBVERBS_1.1", ibv_get_async_event) \
	F(verbs, "IBVERBS_1.1", ibv_ack_async_event) \
	F(verbs, "IBVERBS_1.1", ibv_alloc_pd) \
	F(verbs, "IBVERBS_1.1", ibv_dealloc_pd) \
	F(verbs, "IBVERBS_1.1", ibv_reg_mr) \
	F(verbs, "IBVERBS_1.1", ibv_dereg_mr) \
	F(verbs, "IBVERBS_1.0", ibv_create_comp_channel) \
	F(verbs, "IBVERBS_1.0", ibv_destroy_comp_channel) \
	F(verbs, "IBVERBS_1.1", ibv_create_cq) \
	F(verbs, "IBVERBS_1.1", ibv_destroy_cq) \
	F(verbs, "IBVERBS_1.1", ibv_get_cq_event) \
	F(verbs, "IBVERBS_1.1", ibv_ack_cq_events) \
	F(verbs, "IBVERBS_1.1", ibv_modify_qp) \
	F(verbs, "IBVERBS_1.1", ibv_destroy_qp) \
	F(cm, "RDMACM_1.0", rdma_create_event_channel) \
	F(cm, "RDMACM_1.0", rdma_destroy_event_channel) \
	F(cm, "RDMACM_1.0", rdma_get_devices) \
	F(cm, "RDMACM_1.0", rdma_free_devices) \
	F(cm, "RDMACM_1.0", rdma_create_id) \
	F(cm, "RDMACM_1.0", rdma_destroy_id) \
	F(cm, "RDMACM_1.0", rdma_set_option) \
	F(cm, "RDMACM_1.0", rdma_resolve_addr) \
	F(cm, "RDMACM_1.0", rdma_resolve_route) \
	F(cm, "RDMACM_1.0", rdma_create_qp) \
	F(cm, "RDMACM_1.0", rdma_connect) \
	F(cm, "RDMACM_1.0", rdma_disconnect) \
	F(cm, "RDMACM_1.0", rdma_get_cm_event) \
	F(cm, "RDMACM_1.0", rdma_ack_cm_event)

#undef ibv_query_port
#undef ibv_reg_mr

#define DECLARE(lib, version, name) __typeof__(name) *name;
static struct {
	FUNCTIONS(DECLARE)
} lib;

static void *find(void *library, const char *name, const char *version)
{
	void *f = dlvsym(library, name, version);

	return f ? f : dlsym(library, name);
}

// blk_load opens the libraries once and for all; the caller keeps calls apart. On failure it says what is missing.
int blk_load(char *missing, size_t len)
{
	void *verbs = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_GLOBAL);
	void *cm = verbs ? dlopen("librdmacm.so.1", RTLD_NOW) : NULL;

	if (!cm) {
		snprintf(missing, len, "%s", dlerror());
		return -ENOENT;
	}
#define FIND(library, version, name) \
	lib.name = (__typeof__(lib.name))find(library, #name, version); \
	if (!lib.name) { \
		snprintf(missing, len, "rdma-core has no function " #name); \
		return -ENOSYS; \
	}
	FUNCTIONS(FIND)
	return 0;
}

// fail is -errno, and never 0 when a library forgot to set it.
static int fail(void) { return errno ? -errno : -EIO; }

// failed turns the two ways in which rdma-core returns errors (-1 and errno, or errno itself) into one.
static int failed(int ret)
{
	if (ret == 0)
		return 0;
	return ret > 0 ? -ret : fail();
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return fail();
	return 0;
}

// ---- a connection -----------------------------------------------------------

struct blk_conn {
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id;
	struct ibv_comp_channel *completions;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	int armed;            // a notification is due and was not taken yet
	unsigned int unacked; // notifications taken and not acknowledged
	uint32_t sends, recvs;
	struct ibv_send_wr *send_wrs; // scratch of the posts: sends, twice as many SGEs
	struct ibv_sge *send_sges;
	struct ibv_recv_wr *recv_wrs;
	struct ibv_sge *recv_sges;
};

struct blk_conn *blk_conn_new(void) { return calloc(1, sizeof(struct blk_conn)); }

static int make_scratch(struct blk_conn *c, uint32_t sends, uint32_t recvs)
{
	c->send_wrs = calloc(sends, sizeof(*c->send_wrs));
	c->send_sges = calloc(2 * (size_t)sends, sizeof(*c->send_sges));
	c->recv_wrs = calloc(recvs, sizeof(*c->recv_wrs));
	c->recv_sges = calloc(recvs, sizeof(*c->recv_sges));
	c->sends = sends;
	c->recvs = recvs;
	return c->send_wrs && c->send_sges && c->recv_wrs && c->recv_sges ? 0 : -ENOMEM;
}

// blk_conn_around wraps queues that somebody else made, for tests of the data path.
struct blk_conn *blk_conn_around(struct ibv_qp *qp, struct ibv_cq *cq, uint32_t sends, uint32_t recvs)
{
	struct blk_conn *c = blk_conn_new();

	if (!c || make_scratch(c, sends, recvs)) {
		blk_conn_free(c);
		return NULL;
	}
	c->qp = qp;
	c->cq = cq;
	return c;
}

void blk_conn_free(struct blk_conn *c)
{
	if (!c)
		return;
	free(c->send_wrs);
	free(c->send_sges);
	free(c->recv_wrs);
	free(c->recv_sges);
	free(c);
}

// ---- connection management --------------------------------------------------

int blk_cm_open(struct blk_conn *c)
{
	errno = 0;
	c->channel = lib.rdma_create_event_channel();
	if (!c->channel)
		return fail();
	int err = set_nonblocking(c->channel->fd);
	if (err)
		return err;
	return failed(lib.rdma_create_id(c->channel, &c->id, NULL, RDMA_PS_TCP));
}

int blk_cm_fd(struct blk_conn *c) { return c->channel->fd; }

// blk_cm_next copies the next event and acknowledges it at once, so that nothing ever waits for an acknowledgement.
int blk_cm_next(struct blk_conn *c, struct blk_cm_event *ev)
{
	struct rdma_cm_event *e;

	if (lib.rdma_get_cm_event(c->channel, &e))
		return fail();
	ev->type = e->event;
	ev->status = e->status;
	ev->private_len = 0;
	if (e->event == RDMA_CM_EVENT_ESTABLISHED && e->param.conn.private_data) {
		uint32_t n = e->param.conn.private_data_len;

		ev->private_len = n < BLK_PRIVATE_DATA ? n : BLK_PRIVATE_DATA;
		memcpy(ev->private_data, e->param.conn.private_data, ev->private_len);
	}
	lib.rdma_ack_cm_event(e);
	return 0;
}

int blk_cm_option(struct blk_conn *c, int ack_timeout, uint8_t value)
{
	int name = ack_timeout ? RDMA_OPTION_ID_ACK_TIMEOUT : RDMA_OPTION_ID_TOS;

	return failed(lib.rdma_set_option(c->id, RDMA_OPTION_ID, name, &value, sizeof(value)));
}

static struct sockaddr *to_sockaddr(const struct blk_addr *a, struct sockaddr_storage *s)
{
	struct sockaddr_in *in = (struct sockaddr_in *)s;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)s;

	memset(s, 0, sizeof(*s));
	switch (a->family) {
	case 4:
		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, a->ip, 4);
		return (struct sockaddr *)s;
	case 6:
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(a->port);
		in6->sin6_scope_id = a->scope;
		memcpy(&in6->sin6_addr, a->ip, 16);
		return (struct sockaddr *)s;
	}
	return NULL;
}

static void from_sockaddr(const struct sockaddr *s, struct blk_addr *a)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)s;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)s;

	memset(a, 0, sizeof(*a));
	if (s->sa_family == AF_INET) {
		a->family = 4;
		a->port = ntohs(in->sin_port);
		memcpy(a->ip, &in->sin_addr, 4);
	} else if (s->sa_family == AF_INET6) {
		a->family = 6;
		a->port = ntohs(in6->sin6_port);
		a->scope = in6->sin6_scope_id;
		memcpy(a->ip, &in6->sin6_addr, 16);
	}
}

int blk_resolve_addr(struct blk_conn *c, const struct blk_addr *src, const struct blk_addr *dst, int ms)
{
	struct sockaddr_storage s, d;

	return failed(lib.rdma_resolve_addr(c->id, to_sockaddr(src, &s), to_sockaddr(dst, &d), ms));
}

int blk_resolve_route(struct blk_conn *c, int ms) { return failed(lib.rdma_resolve_route(c->id, ms)); }

int blk_connect(struct blk_conn *c, const struct blk_params *p)
{
	struct rdma_conn_param param = {
		.private_data = p->private_data,
		.private_data_len = p->private_len,
		.responder_resources = p->responder_resources,
		.initiator_depth = p->initiator_depth,
		.retry_count = p->retry_count,
		.rnr_retry_count = p->rnr_retry_count,
	};

	return failed(lib.rdma_connect(c->id, &param));
}

int blk_disconnect(struct blk_conn *c) { return failed(lib.rdma_disconnect(c->id)); }

int blk_cm_close(struct blk_conn *c)
{
	if (c->id) {
		int err = failed(lib.rdma_destroy_id(c->id));

		if (err)
			return err;
		c->id = NULL;
	}
	if (c->channel)
		lib.rdma_destroy_event_channel(c->channel);
	c->channel = NULL;
	return 0;
}

// ---- the device -------------------------------------------------------------

void *blk_context(struct blk_conn *c) { return c->id->verbs; }

int blk_query_device(struct blk_conn *c, struct blk_device *d)
{
	struct ibv_context *context = c->id->verbs;
	struct ibv_device_attr attr = {0};
	struct ibv_port_attr port = {0};
	int err = failed(lib.ibv_query_device(context, &attr));

	if (!err)
		err = failed(lib.ibv_query_port(context, c->id->port_num, (void *)&port));
	if (err)
		return err;
	snprintf(d->name, sizeof(d->name), "%s", lib.ibv_get_device_name(context->device));
	d->port = c->id->port_num;
	d->active_mtu = port.active_mtu;
	d->link_layer = port.link_layer;
	d->active = port.state == IBV_PORT_ACTIVE;
	d->max_qp_wr = attr.max_qp_wr;
	d->max_cqe = attr.max_cqe;
	d->max_qp_rd_atom = attr.max_qp_rd_atom;
	d->max_qp_init_rd_atom = attr.max_qp_init_rd_atom;
	d->num_comp_vectors = context->num_comp_vectors;
	from_sockaddr(rdma_get_local_addr(c->id), &d->local);
	return 0;
}

void blk_forget_removed(void)
{
	struct ibv_context **devices = lib.rdma_get_devices(NULL);

	if (devices)
		lib.rdma_free_devices(devices);
}

int blk_async_fd(void *context)
{
	int fd = ((struct ibv_context *)context)->async_fd;
	int err = set_nonblocking(fd);

	return err ? err : fd;
}

// blk_async_next copies the next event and acknowledges it at once: destroying a queue waits for acknowledgements.
int blk_async_next(void *context, struct blk_async_event *ev)
{
	struct ibv_async_event e;

	if (lib.ibv_get_async_event(context, &e))
		return fail();
	ev->type = e.event_type;
	ev->port = 0;
	ev->object = 0;
	switch (e.event_type) {
	case IBV_EVENT_CQ_ERR:
		ev->object = (uintptr_t)e.element.cq;
		break;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		ev->object = (uintptr_t)e.element.qp;
		break;
	case IBV_EVENT_PORT_ACTIVE:
	case IBV_EVENT_PORT_ERR:
	case IBV_EVENT_GID_CHANGE:
		ev->port = e.element.port_num;
		break;
	default:
		break;
	}
	lib.ibv_ack_async_event(&e);
	return 0;
}

struct blk_ptr blk_alloc_pd(void *context)
{
	errno = 0;
	struct blk_ptr r = {.p = lib.ibv_alloc_pd(context)};

	r.err = r.p ? 0 : fail();
	return r;
}

int blk_dealloc_pd(void *pd) { return failed(lib.ibv_dealloc_pd(pd)); }

struct blk_mr blk_reg_mr(void *pd, uintptr_t addr, size_t len, int access)
{
	errno = 0;
	struct ibv_mr *mr = lib.ibv_reg_mr(pd, (void *)addr, len, access);

	if (!mr)
		return (struct blk_mr){.err = fail()};
	return (struct blk_mr){.mr = mr, .lkey = mr->lkey, .rkey = mr->rkey};
}

int blk_dereg_mr(void *mr) { return failed(lib.ibv_dereg_mr(mr)); }

// ---- the queues -------------------------------------------------------------

int blk_create_cq(struct blk_conn *c, uint32_t sends, uint32_t recvs, int vector)
{
	struct ibv_context *context = c->id->verbs;
	int err = make_scratch(c, sends, recvs);

	if (err)
		return err;
	errno = 0;
	c->completions = lib.ibv_create_comp_channel(context);
	if (!c->completions)
		return fail();
	err = set_nonblocking(c->completions->fd);
	if (err)
		return err;
	errno = 0;
	c->cq = lib.ibv_create_cq(context, (int)(sends + recvs), NULL, c->completions, vector);
	return c->cq ? 0 : fail();
}

// blk_create_qp returns how many bytes a send may carry inline.
int blk_create_qp(struct blk_conn *c, void *pd, uint32_t sends, uint32_t recvs, uint32_t inlined)
{
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.send_cq = c->cq,
		.recv_cq = c->cq,
		.cap = {
			.max_send_wr = sends,
			.max_recv_wr = recvs,
			.max_send_sge = 2,
			.max_recv_sge = 1,
			.max_inline_data = inlined,
		},
	};
	int err = failed(lib.rdma_create_qp(c->id, pd, &attr));

	if (err)
		return err;
	c->qp = c->id->qp;
	return (int)attr.cap.max_inline_data;
}

int blk_cq_fd(struct blk_conn *c) { return c->completions->fd; }
uintptr_t blk_qp(struct blk_conn *c) { return (uintptr_t)c->qp; }
uintptr_t blk_cq(struct blk_conn *c) { return (uintptr_t)c->cq; }

int blk_set_rnr_timer(struct blk_conn *c, uint8_t code)
{
	struct ibv_qp_attr attr = {.min_rnr_timer = code};

	return failed(lib.ibv_modify_qp(c->qp, &attr, IBV_QP_MIN_RNR_TIMER));
}

int blk_abort(struct blk_conn *c)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	return failed(lib.ibv_modify_qp(c->qp, &attr, IBV_QP_STATE));
}

int blk_destroy_qp(struct blk_conn *c)
{
	if (!c->qp)
		return 0;
	int err = failed(lib.ibv_destroy_qp(c->qp));

	if (err)
		return err;
	c->qp = NULL;
	c->id->qp = NULL;
	return 0;
}

int blk_destroy_cq(struct blk_conn *c)
{
	int err = 0;

	if (c->cq) {
		lib.ibv_ack_cq_events(c->cq, c->unacked);
		c->unacked = 0;
		err = failed(lib.ibv_destroy_cq(c->cq));
		if (err)
			return err;
		c->cq = NULL;
	}
	if (c->completions)
		err = failed(lib.ibv_destroy_comp_channel(c->completions));
	if (!err)
		c->completions = NULL;
	return err;
}

// ---- the data path ----------------------------------------------------------

static int64_t posted(uint32_t n, int err) { return (int64_t)n | (int64_t)(err < 0 ? -err : err) << 32; }

static unsigned int send_flags(const struct blk_send_wr *w)
{
	return (w->inlined ? IBV_SEND_INLINE : 0) | (w->signaled ? IBV_SEND_SIGNALED : 0);
}

static void copy_sge(struct ibv_sge *to, const struct blk_sge *from)
{
	to->addr = from->addr;
	to->length = from->len;
	to->lkey = from->lkey;
}

static void chain_send(struct blk_conn *c, uint32_t i, const struct blk_send_wr *w)
{
	struct ibv_send_wr *wr = &c->send_wrs[i];
	struct ibv_sge *sge = &c->send_sges[2 * i];

	copy_sge(&sge[0], &w->sge[0]);
	copy_sge(&sge[1], &w->sge[1]);
	wr->wr_id = w->id;
	wr->next = wr + 1;
	wr->sg_list = sge;
	wr->num_sge = (int)(w->num_sge <= 2 ? w->num_sge : 2);
	wr->opcode = IBV_WR_SEND;
	wr->send_flags = send_flags(w);
}

int64_t blk_post_send(struct blk_conn *c, const struct blk_send_wr *wrs, uint32_t n)
{
	uint32_t take = n < c->sends ? n : c->sends;
	struct ibv_send_wr *bad = NULL;

	for (uint32_t i = 0; i < take; i++)
		chain_send(c, i, &wrs[i]);
	c->send_wrs[take - 1].next = NULL;
	int err = ibv_post_send(c->qp, c->send_wrs, &bad);
	if (err)
		return posted(bad ? (uint32_t)(bad - c->send_wrs) : 0, err);
	return posted(take, take == n ? 0 : ENOMEM);
}

int64_t blk_post_recv(struct blk_conn *c, const struct blk_recv_wr *wrs, uint32_t n)
{
	uint32_t take = n < c->recvs ? n : c->recvs;
	struct ibv_recv_wr *bad = NULL;

	for (uint32_t i = 0; i < take; i++) {
		copy_sge(&c->recv_sges[i], &wrs[i].sge);
		c->recv_wrs[i] = (struct ibv_recv_wr){
			.wr_id = wrs[i].id,
			.next = i + 1 < take ? &c->recv_wrs[i + 1] : NULL,
			.sg_list = &c->recv_sges[i],
			.num_sge = 1,
		};
	}
	int err = ibv_post_recv(c->qp, c->recv_wrs, &bad);
	if (err)
		return posted(bad ? (uint32_t)(bad - c->recv_wrs) : 0, err);
	return posted(take, take == n ? 0 : ENOMEM);
}

static void copy_wc(struct blk_wc *to, const struct ibv_wc *from)
{
	to->id = from->wr_id;
	to->status = from->status;
	to->op = from->opcode;
	to->len = from->byte_len;
	to->flags = from->wc_flags;
	to->inv_rkey = from->invalidated_rkey;
	to->vendor_err = from->vendor_err;
}

int blk_poll(struct blk_conn *c, struct blk_wc *wcs, uint32_t n)
{
	enum { BATCH = 32 };
	struct ibv_wc wc[BATCH];
	uint32_t done = 0;

	while (done < n) {
		uint32_t want = n - done < BATCH ? n - done : BATCH;
		int got = ibv_poll_cq(c->cq, (int)want, wc);

		if (got < 0)
			return done ? (int)done : -EIO;
		for (int i = 0; i < got; i++)
			copy_wc(&wcs[done++], &wc[i]);
		if ((uint32_t)got < want)
			break;
	}
	return (int)done;
}

// take_notification takes the one notification that is due off the channel. It returns 1 when there is none yet: the
// request for it still stands.
static int take_notification(struct blk_conn *c)
{
	enum { ACK_EVERY = 64 }; // acknowledging takes a lock
	struct ibv_cq *cq;
	void *user;

	if (lib.ibv_get_cq_event(c->completions, &cq, &user))
		return errno == EAGAIN ? 1 : fail();
	c->armed = 0;
	if (++c->unacked >= ACK_EVERY) {
		lib.ibv_ack_cq_events(c->cq, c->unacked);
		c->unacked = 0;
	}
	return 0;
}

int blk_arm(struct blk_conn *c)
{
	if (c->armed) {
		int err = take_notification(c);

		if (err)
			return err > 0 ? 0 : err;
	}
	int err = failed(ibv_req_notify_cq(c->cq, 0));
	c->armed = !err;
	return err;
}
