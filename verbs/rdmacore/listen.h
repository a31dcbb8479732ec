// The passive end's part of the seam between Go and rdma-core; see shim.h.

#ifndef ISERBLK_RDMACORE_LISTEN_H
#define ISERBLK_RDMACORE_LISTEN_H

#include "shim.h"

struct blk_listener;

// A connection request. Its identifier is the caller's: blk_take or blk_refuse ends it.
struct blk_request {
	void *id;
	uint32_t private_len;
	uint8_t initiator_depth, responder_resources; // as rdma_accept(3) wants to see them, at most
	uint8_t private_data[BLK_PRIVATE_DATA];
	struct blk_addr remote;
};

int blk_listen(struct blk_listener **l, const struct blk_addr *at, int backlog);
int blk_listen_fd(struct blk_listener *l);
uint16_t blk_listen_port(struct blk_listener *l);
int blk_listen_next(struct blk_listener *l, struct blk_request *r); // 1: a request, 0: something else
void blk_listen_close(struct blk_listener *l);

int blk_take(struct blk_conn *c, void *id); // c gets an event channel of its own, with id on it
void blk_refuse(void *id);
int blk_accept(struct blk_conn *c, const struct blk_params *p);

// blk_post_one posts one signaled work request: a SEND, or an RDMA WRITE or READ when rkey counts.
enum { BLK_SEND, BLK_RDMA_WRITE, BLK_RDMA_READ };
int blk_post_one(struct blk_conn *c, int op, uint64_t id, const struct blk_sge *sge, uint64_t va, uint32_t rkey);

#endif
