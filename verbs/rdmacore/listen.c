//go:build cgo && linux

#include "internal.h"
#include "listen.h"

#include <stdlib.h>
#include <string.h>

struct blk_listener {
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id;
};

int blk_listen(struct blk_listener **out, const struct blk_addr *at, int backlog)
{
	struct blk_listener *l = calloc(1, sizeof(*l));
	struct sockaddr_storage s;

	if (!l)
		return -ENOMEM;
	errno = 0;
	l->channel = blk_lib.rdma_create_event_channel();
	int err = l->channel ? set_nonblocking(l->channel->fd) : fail();
	if (!err)
		err = failed(blk_lib.rdma_create_id(l->channel, &l->id, NULL, RDMA_PS_TCP));
	if (!err)
		err = failed(blk_lib.rdma_bind_addr(l->id, to_sockaddr(at, &s)));
	if (!err)
		err = failed(blk_lib.rdma_listen(l->id, backlog));
	if (err)
		blk_listen_close(l);
	else
		*out = l;
	return err;
}

int blk_listen_fd(struct blk_listener *l) { return l->channel->fd; }

uint16_t blk_listen_port(struct blk_listener *l)
{
	struct blk_addr a;

	from_sockaddr(rdma_get_local_addr(l->id), &a);
	return a.port;
}

// blk_listen_next copies the next event and acknowledges it at once: moving the identifier to another channel waits
// for that.
int blk_listen_next(struct blk_listener *l, struct blk_request *r)
{
	struct rdma_cm_event *e;

	if (blk_lib.rdma_get_cm_event(l->channel, &e))
		return fail();
	int request = e->event == RDMA_CM_EVENT_CONNECT_REQUEST;
	if (request) {
		const struct rdma_conn_param *p = &e->param.conn;
		uint32_t n = p->private_data ? p->private_data_len : 0;

		memset(r, 0, sizeof(*r));
		r->id = e->id;
		r->responder_resources = p->responder_resources;
		r->initiator_depth = p->initiator_depth;
		r->private_len = n < BLK_PRIVATE_DATA ? n : BLK_PRIVATE_DATA;
		if (r->private_len)
			memcpy(r->private_data, p->private_data, r->private_len);
		from_sockaddr(rdma_get_peer_addr(e->id), &r->remote);
	}
	blk_lib.rdma_ack_cm_event(e);
	return request;
}

void blk_listen_close(struct blk_listener *l)
{
	if (l->id)
		blk_lib.rdma_destroy_id(l->id);
	if (l->channel)
		blk_lib.rdma_destroy_event_channel(l->channel);
	free(l);
}

int blk_take(struct blk_conn *c, void *id)
{
	errno = 0;
	c->channel = blk_lib.rdma_create_event_channel();
	int err = c->channel ? set_nonblocking(c->channel->fd) : fail();
	if (!err)
		err = failed(blk_lib.rdma_migrate_id(id, c->channel));
	if (err)
		return err;
	c->id = id;
	return 0;
}

void blk_refuse(void *id) { blk_lib.rdma_destroy_id(id); }

int blk_accept(struct blk_conn *c, const struct blk_params *p)
{
	struct rdma_conn_param param = {
		.private_data = p->private_data,
		.private_data_len = p->private_len,
		.responder_resources = p->responder_resources,
		.initiator_depth = p->initiator_depth,
		.rnr_retry_count = p->rnr_retry_count,
	};

	return failed(blk_lib.rdma_accept(c->id, &param));
}

int blk_post_one(struct blk_conn *c, int op, uint64_t id, const struct blk_sge *from, uint64_t va, uint32_t rkey)
{
	static const enum ibv_wr_opcode opcodes[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};
	struct ibv_sge sge = {.addr = from->addr, .length = from->len, .lkey = from->lkey};
	struct ibv_send_wr *bad, wr = {
		.wr_id = id,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = opcodes[op],
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = {.remote_addr = va, .rkey = rkey},
	};

	return failed(ibv_post_send(c->qp, &wr, &bad));
}
