//go:build cgo && linux

#include "fake.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>

struct fake {
	struct ibv_context context;
	struct ibv_qp qp;
	struct ibv_cq cq;
	int doorbells, requests, room;
	int posted, completed, polled;
	struct fake_wr wrs[FAKE_ROOM];
	struct ibv_wc wcs[FAKE_ROOM];
};

static struct fake *of(struct ibv_context *context) { return (struct fake *)context; }

// take notes one work request down; it is 0 when there is no room.
static int take(struct fake *f, uint64_t id, struct ibv_sge *sges, int n, unsigned int opcode, unsigned int flags)
{
	if (f->posted >= f->room)
		return 0;
	struct fake_wr *wr = &f->wrs[f->posted++];

	*wr = (struct fake_wr){.id = id, .num_sge = n, .opcode = opcode, .flags = flags};
	for (int i = 0; i < n && i < 2; i++) {
		wr->addr[i] = sges[i].addr;
		wr->len[i] = sges[i].length;
		wr->lkey[i] = sges[i].lkey;
	}
	return 1;
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct fake *f = of(qp->context);

	f->doorbells++;
	for (; wr; wr = wr->next)
		if (!take(f, wr->wr_id, wr->sg_list, wr->num_sge, wr->opcode, wr->send_flags)) {
			*bad = wr;
			return ENOMEM;
		}
	return 0;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct fake *f = of(qp->context);

	f->doorbells++;
	for (; wr; wr = wr->next)
		if (!take(f, wr->wr_id, wr->sg_list, wr->num_sge, 0, 0)) {
			*bad = wr;
			return ENOMEM;
		}
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *wc)
{
	struct fake *f = of(cq->context);
	int got = 0;

	while (got < n && f->polled < f->completed)
		wc[got++] = f->wcs[f->polled++];
	return got;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited)
{
	of(cq->context)->requests += !solicited;
	return 0;
}

struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	f->context.ops.post_send = post_send;
	f->context.ops.post_recv = post_recv;
	f->context.ops.poll_cq = poll_cq;
	f->context.ops.req_notify_cq = req_notify_cq;
	f->qp.context = f->cq.context = &f->context;
	f->room = FAKE_ROOM;
	return f;
}

void fake_free(struct fake *f) { free(f); }
void *fake_qp(struct fake *f) { return &f->qp; }
void *fake_cq(struct fake *f) { return &f->cq; }
void fake_refuse_after(struct fake *f, int n) { f->room = f->posted + n; }
int fake_doorbells(struct fake *f) { return f->doorbells; }
int fake_requests(struct fake *f) { return f->requests; }
int fake_posted(struct fake *f) { return f->posted; }
struct fake_wr fake_wr(struct fake *f, int i) { return f->wrs[i]; }

void fake_reset(struct fake *f)
{
	f->doorbells = f->requests = f->posted = f->polled = 0;
	f->room = FAKE_ROOM;
}

void fake_complete(struct fake *f, struct fake_wc wc)
{
	if (f->completed == FAKE_ROOM)
		abort();
	f->wcs[f->completed++] = (struct ibv_wc){
		.wr_id = wc.id,
		.status = wc.status,
		.opcode = wc.op,
		.byte_len = wc.len,
		.wc_flags = wc.flags,
		.invalidated_rkey = wc.inv_rkey,
		.vendor_err = wc.vendor_err,
	};
}
