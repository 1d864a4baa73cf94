/* Two versions of a deployment beside each other: which of them a request goes to. Pure.
 *
 * Every request draws a number below 2^32, from a hash: the same session, or the same request id, always
 * draws the same. Those that draw among the highest `share` of all go to the new version, so that a share
 * that rises adds requests (and users) and moves none back.
 * A version that has no slots that take requests gets none: what drew it goes to the other one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RS_SPLIT_NOBODY (UINT64_C(1) << 32)

struct rs_split {
    bool on;          /* false: requests go where there is a slot, whatever its version */
    uint64_t version; /* rs_wish_hash of the new one; 0: there is none */
    uint64_t salt;    /* 0 is as good as any */
    uint64_t share;   /* who draws at least that is to go to the new version */
    uint64_t from[2]; /* and does, by what there is: who may go to any node; to this one only */
};

/* share: 0 to 1. */
struct rs_split rs_split_make(uint64_t version, double share, uint64_t salt);
uint32_t rs_split_draw(const struct rs_split *s, const void *key, size_t len);
/* Which versions have slots: has[local only][new]. True: some requests go to another one from now on. */
bool rs_split_settle(struct rs_split *s, const bool has[2][2]);
