/* A hash of 128 bits that only who knows the key can make collide: SipHash-2-4.
 *
 * Ownership: a plain value. Init, put what is to be hashed piece by piece, take the sum.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rs_hash_key {
    uint64_t k[2]; /* random */
};

struct rs_hash_sum {
    uint64_t h[2];
};

struct rs_hash {
    uint64_t v[4];
    uint64_t len;
    unsigned char rest[8]; /* of the last piece */
};

void rs_hash_init(struct rs_hash *h, const struct rs_hash_key *key);
void rs_hash_put(struct rs_hash *h, const void *data, size_t len);
/* The length first, so that ("a", "bc") and ("ab", "c") differ. */
void rs_hash_put_field(struct rs_hash *h, const void *data, size_t len);
struct rs_hash_sum rs_hash_end(struct rs_hash *h);
static inline bool rs_hash_same(struct rs_hash_sum a, struct rs_hash_sum b)
{
    return a.h[0] == b.h[0] && a.h[1] == b.h[1];
}
