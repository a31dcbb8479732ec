//go:build cgo && linux

#define _GNU_SOURCE
#include "internal.h"

#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the libraries ----------------------------------------------------------

struct blk_lib blk_lib;

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
	blk_lib.name = (__typeof__(blk_lib.name))find(library, #name, version); \
	if (!blk_lib.name) { \
		snprintf(missing, len, "rdma-core has no function " #name); \
		return -ENOSYS; \
	}
	FUNCTIONS(FIND)
	return 0;
}

// ---- a connection -----------------------------------------------------------

struct blk_conn *blk_conn_new(void) { return calloc(1, sizeof(struct blk_conn)); }

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
	c->channel = blk_lib.rdma_create_event_channel();
	if (!c->channel)
		return fail();
	int err = set_nonblocking(c->channel->fd);
	if (err)
		return err;
	return failed(blk_lib.rdma_create_id(c->channel, &c->id, NULL, RDMA_PS_TCP));
}

int blk_cm_fd(struct blk_conn *c) { return c->channel->fd; }

// blk_cm_next copies the next event and acknowledges it at once, so that nothing ever waits for an acknowledgement.
int blk_cm_next(struct blk_conn *c, struct blk_cm_event *ev)
{
	struct rdma_cm_event *e;

	if (blk_lib.rdma_get_cm_event(c->channel, &e))
		return fail();
	ev->type = e->event;
	ev->status = e->status;
	ev->private_len = 0;
	if (e->event == RDMA_CM_EVENT_ESTABLISHED && e->param.conn.private_data) {
		uint32_t n = e->param.conn.private_data_len;

		ev->private_len = n < BLK_PRIVATE_DATA ? n : BLK_PRIVATE_DATA;
		memcpy(ev->private_data, e->param.conn.private_data, ev->private_len);
	}
	blk_lib.rdma_ack_cm_event(e);
	return 0;
}

int blk_cm_option(struct blk_conn *c, int ack_timeout, uint8_t value)
{
	int name = ack_timeout ? RDMA_OPTION_ID_ACK_TIMEOUT : RDMA_OPTION_ID_TOS;

	return failed(blk_lib.rdma_set_option(c->id, RDMA_OPTION_ID, name, &value, sizeof(value)));
}

struct sockaddr *to_sockaddr(const struct blk_addr *a, struct sockaddr_storage *s)
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

void from_sockaddr(const struct sockaddr *s, struct blk_addr *a)
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

	return failed(blk_lib.rdma_resolve_addr(c->id, to_sockaddr(src, &s), to_sockaddr(dst, &d), ms));
}

int blk_resolve_route(struct blk_conn *c, int ms) { return failed(blk_lib.rdma_resolve_route(c->id, ms)); }

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

	return failed(blk_lib.rdma_connect(c->id, &param));
}

int blk_disconnect(struct blk_conn *c) { return failed(blk_lib.rdma_disconnect(c->id)); }

int blk_cm_close(struct blk_conn *c)
{
	if (c->id) {
		int err = failed(blk_lib.rdma_destroy_id(c->id));

		if (err)
			return err;
		c->id = NULL;
	}
	if (c->channel)
		blk_lib.rdma_destroy_event_channel(c->channel);
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
	int err = failed(blk_lib.ibv_query_device(context, &attr));

	if (!err)
		err = failed(blk_lib.ibv_query_port(context, c->id->port_num, (void *)&port));
	if (err)
		return err;
	snprintf(d->name, sizeof(d->name), "%s", blk_lib.ibv_get_device_name(context->device));
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

int blk_port_inactive(struct blk_conn *c)
{
	struct ibv_port_attr port = {0};

	if (!c->id || !c->id->verbs || blk_lib.ibv_query_port(c->id->verbs, c->id->port_num, (void *)&port))
		return 0;
	return port.state != IBV_PORT_ACTIVE;
}

void blk_forget_removed(void)
{
	struct ibv_context **devices = blk_lib.rdma_get_devices(NULL);

	if (devices)
		blk_lib.rdma_free_devices(devices);
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

	if (blk_lib.ibv_get_async_event(context, &e))
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
	blk_lib.ibv_ack_async_event(&e);
	return 0;
}

struct blk_ptr blk_alloc_pd(void *context)
{
	errno = 0;
	struct blk_ptr r = {.p = blk_lib.ibv_alloc_pd(context)};

	r.err = r.p ? 0 : fail();
	return r;
}

int blk_dealloc_pd(void *pd) { return failed(blk_lib.ibv_dealloc_pd(pd)); }

struct blk_mr blk_reg_mr(void *pd, uintptr_t addr, size_t len, int access)
{
	errno = 0;
	struct ibv_mr *mr = blk_lib.ibv_reg_mr(pd, (void *)addr, len, access);

	if (!mr)
		return (struct blk_mr){.err = fail()};
	return (struct blk_mr){.mr = mr, .lkey = mr->lkey, .rkey = mr->rkey};
}

int blk_dereg_mr(void *mr) { return failed(blk_lib.ibv_dereg_mr(mr)); }
