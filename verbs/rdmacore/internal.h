// What shim.c and queues.c share.

#ifndef ISERBLK_RDMACORE_INTERNAL_H
#define ISERBLK_RDMACORE_INTERNAL_H

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

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
	F(cm, "RDMACM_1.0", rdma_bind_addr) \
	F(cm, "RDMACM_1.0", rdma_listen) \
	F(cm, "RDMACM_1.0", rdma_migrate_id) \
	F(cm, "RDMACM_1.0", rdma_accept) \
	F(cm, "RDMACM_1.0", rdma_disconnect) \
	F(cm, "RDMACM_1.0", rdma_get_cm_event) \
	F(cm, "RDMACM_1.0", rdma_ack_cm_event)

#undef ibv_query_port
#undef ibv_reg_mr

#define DECLARE(lib, version, name) __typeof__(name) *name;
struct blk_lib {
	FUNCTIONS(DECLARE)
};
extern struct blk_lib blk_lib;

// fail is -errno, and never 0 when a library forgot to set it.
static inline int fail(void) { return errno ? -errno : -EIO; }

// failed turns the two ways in which rdma-core returns errors (-1 and errno, or errno itself) into one.
static inline int failed(int ret)
{
	if (ret == 0)
		return 0;
	return ret > 0 ? -ret : fail();
}

struct sockaddr *to_sockaddr(const struct blk_addr *a, struct sockaddr_storage *s);
void from_sockaddr(const struct sockaddr *s, struct blk_addr *a);

static inline int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return fail();
	return 0;
}

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

#endif
