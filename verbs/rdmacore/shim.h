// The seam between Go and rdma-core. Nothing here is linked against rdma-core: blk_load finds its functions at run
// time. Functions return 0 or more, or a negative errno. Pointers to Go memory are used during the call only.

#ifndef ISERBLK_RDMACORE_SHIM_H
#define ISERBLK_RDMACORE_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct ibv_cq;
struct ibv_qp;

// The same layout as verbs.SendWR, verbs.RecvWR, verbs.SGE and verbs.WC; layout.go and layout_test.go pin it.
struct blk_sge {
	uint64_t addr;
	uint32_t len;
	uint32_t lkey;
};

struct blk_send_wr {
	uint64_t id;
	struct blk_sge sge[2];
	uint32_t num_sge;
	uint32_t inlined;
	uint32_t signaled;
	uint32_t pad;
};

struct blk_recv_wr {
	uint64_t id;
	struct blk_sge sge;
};

struct blk_wc {
	uint64_t id;
	uint32_t status;
	uint32_t op;
	uint32_t len;
	uint32_t flags;
	uint32_t inv_rkey;
	uint32_t vendor_err;
};

// An address: family 4 (ip[0..3]), 6, or 0 for none. Port in host order.
struct blk_addr {
	uint8_t ip[16];
	uint32_t scope;
	uint16_t port;
	uint8_t family;
	uint8_t pad;
};

enum { BLK_PRIVATE_DATA = 196 }; // what a CM reply can carry

struct blk_cm_event {
	uint32_t type; // enum rdma_cm_event_type
	int32_t status;
	uint32_t private_len;
	uint8_t private_data[BLK_PRIVATE_DATA];
};

struct blk_async_event {
	uint32_t type;    // enum ibv_event_type
	uint32_t port;    // of a port event
	uintptr_t object; // the ibv_qp or ibv_cq of such an event
};

struct blk_device {
	char name[64];
	uint32_t port;
	uint32_t active_mtu; // enum ibv_mtu: 1 is 256, 5 is 4096
	uint32_t link_layer; // 1 InfiniBand, 2 Ethernet
	uint32_t active;
	uint32_t max_qp_wr, max_cqe;
	uint32_t max_qp_rd_atom, max_qp_init_rd_atom;
	uint32_t num_comp_vectors;
	struct blk_addr local;
};

struct blk_params {
	const void *private_data;
	uint8_t private_len;
	uint8_t responder_resources;
	uint8_t initiator_depth;
	uint8_t retry_count;
	uint8_t rnr_retry_count;
};

struct blk_mr {
	void *mr;
	uint32_t lkey, rkey;
	int err;
};

struct blk_ptr {
	void *p;
	int err;
};

struct blk_conn;

int blk_load(char *missing, size_t len);

struct blk_conn *blk_conn_new(void);
struct blk_conn *blk_conn_around(struct ibv_qp *qp, struct ibv_cq *cq, uint32_t sends, uint32_t recvs);
void blk_conn_free(struct blk_conn *c);

int blk_cm_open(struct blk_conn *c);
int blk_cm_fd(struct blk_conn *c);
int blk_cm_next(struct blk_conn *c, struct blk_cm_event *ev);
int blk_cm_option(struct blk_conn *c, int ack_timeout, uint8_t value);
int blk_resolve_addr(struct blk_conn *c, const struct blk_addr *src, const struct blk_addr *dst, int ms);
int blk_resolve_route(struct blk_conn *c, int ms);
int blk_connect(struct blk_conn *c, const struct blk_params *p);
int blk_disconnect(struct blk_conn *c);
int blk_cm_close(struct blk_conn *c);

void *blk_context(struct blk_conn *c);
int blk_query_device(struct blk_conn *c, struct blk_device *d);
int blk_port_inactive(struct blk_conn *c); // 1 when the port of the route says so, 0 else
void blk_forget_removed(void); // has librdmacm close what it holds of devices that are gone
int blk_async_fd(void *context);
int blk_async_next(void *context, struct blk_async_event *ev);

struct blk_ptr blk_alloc_pd(void *context);
int blk_dealloc_pd(void *pd);
struct blk_mr blk_reg_mr(void *pd, uintptr_t addr, size_t len, int access);
int blk_dereg_mr(void *mr);

int blk_create_cq(struct blk_conn *c, uint32_t sends, uint32_t recvs, int vector);
int blk_create_qp(struct blk_conn *c, void *pd, uint32_t sends, uint32_t recvs, uint32_t inlined);
int blk_cq_fd(struct blk_conn *c);
uintptr_t blk_qp(struct blk_conn *c);
uintptr_t blk_cq(struct blk_conn *c);
int blk_set_rnr_timer(struct blk_conn *c, uint8_t code);
int blk_abort(struct blk_conn *c);
int blk_destroy_qp(struct blk_conn *c);
int blk_destroy_cq(struct blk_conn *c);

// The data path. The posts return how many were taken, with errno << 32 above it when that is not all.
int64_t blk_post_send(struct blk_conn *c, const struct blk_send_wr *wrs, uint32_t n);
int64_t blk_post_recv(struct blk_conn *c, const struct blk_recv_wr *wrs, uint32_t n);
int blk_poll(struct blk_conn *c, struct blk_wc *wcs, uint32_t n);
int blk_arm(struct blk_conn *c);

#endif
