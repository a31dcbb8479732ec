//go:build cgo && linux

#include "internal.h"

#include <stdlib.h>

// ---- the queues -------------------------------------------------------------

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

int blk_create_cq(struct blk_conn *c, uint32_t sends, uint32_t recvs, int vector)
{
	struct ibv_context *context = c->id->verbs;
	int err = make_scratch(c, sends, recvs);

	if (err)
		return err;
	errno = 0;
	c->completions = blk_lib.ibv_create_comp_channel(context);
	if (!c->completions)
		return fail();
	err = set_nonblocking(c->completions->fd);
	if (err)
		return err;
	errno = 0;
	c->cq = blk_lib.ibv_create_cq(context, (int)(sends + recvs), NULL, c->completions, vector);
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
	int err = failed(blk_lib.rdma_create_qp(c->id, pd, &attr));

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

	return failed(blk_lib.ibv_modify_qp(c->qp, &attr, IBV_QP_MIN_RNR_TIMER));
}

int blk_abort(struct blk_conn *c)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	return failed(blk_lib.ibv_modify_qp(c->qp, &attr, IBV_QP_STATE));
}

int blk_destroy_qp(struct blk_conn *c)
{
	if (!c->qp)
		return 0;
	int err = failed(blk_lib.ibv_destroy_qp(c->qp));

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
		blk_lib.ibv_ack_cq_events(c->cq, c->unacked);
		c->unacked = 0;
		err = failed(blk_lib.ibv_destroy_cq(c->cq));
		if (err)
			return err;
		c->cq = NULL;
	}
	if (c->completions)
		err = failed(blk_lib.ibv_destroy_comp_channel(c->completions));
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

	if (blk_lib.ibv_get_cq_event(c->completions, &cq, &user))
		return errno == EAGAIN ? 1 : fail();
	c->armed = 0;
	if (++c->unacked >= ACK_EVERY) {
		blk_lib.ibv_ack_cq_events(c->cq, c->unacked);
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
