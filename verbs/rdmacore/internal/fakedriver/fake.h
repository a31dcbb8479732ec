#ifndef ISERBLK_FAKEDRIVER_H
#define ISERBLK_FAKEDRIVER_H

#include <stdint.h>

enum { FAKE_ROOM = 128 };

// One posted work request, as the driver saw it.
struct fake_wr {
	uint64_t id;
	uint64_t addr[2];
	uint32_t len[2], lkey[2];
	uint32_t num_sge, opcode, flags;
};

struct fake_wc {
	uint64_t id;
	uint32_t status, op, len, flags, inv_rkey, vendor_err;
};

struct fake;

struct fake *fake_new(void);
void fake_free(struct fake *f);
void *fake_qp(struct fake *f);
void *fake_cq(struct fake *f);
void fake_refuse_after(struct fake *f, int n);
int fake_doorbells(struct fake *f);
int fake_requests(struct fake *f);
int fake_posted(struct fake *f);
struct fake_wr fake_wr(struct fake *f, int i);
void fake_reset(struct fake *f);
void fake_complete(struct fake *f, struct fake_wc wc);

#endif
