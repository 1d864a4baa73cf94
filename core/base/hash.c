#include "core/base/hash.h"

#include <string.h>

static uint64_t rotate(uint64_t x, int b)
{
    return x << b | x >> (64 - b);
}

static void mix(uint64_t v[4], int rounds)
{
    while (rounds--) {
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

static uint64_t word(const unsigned char *p)
{
    uint64_t w = 0;

    for (int i = 7; i >= 0; i--)
        w = w << 8 | p[i];
    return w;
}

static void take(struct rs_hash *h, uint64_t w)
{
    h->v[3] ^= w;
    mix(h->v, 2);
    h->v[0] ^= w;
}

void rs_hash_init(struct rs_hash *h, const struct rs_hash_key *key)
{
    *h = (struct rs_hash){.v = {key->k[0] ^ UINT64_C(0x736f6d6570736575),
                                key->k[1] ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
                                key->k[0] ^ UINT64_C(0x6c7967656e657261),
                                key->k[1] ^ UINT64_C(0x7465646279746573)}};
}

void rs_hash_put(struct rs_hash *h, const void *data, size_t len)
{
    const unsigned char *p = data;
    size_t have = h->len % 8;

    h->len += len;
    if (have) {
        size_t n = 8 - have < len ? 8 - have : len;

        memcpy(h->rest + have, p, n);
        if (have + n < 8)
            return;
        take(h, word(h->rest));
        p += n;
        len -= n;
    }
    for (; len >= 8; p += 8, len -= 8)
        take(h, word(p));
    if (len)
        memcpy(h->rest, p, len);
}

void rs_hash_put_field(struct rs_hash *h, const void *data, size_t len)
{
    uint64_t n = len;

    rs_hash_put(h, &n, sizeof(n));
    if (len)
        rs_hash_put(h, data, len);
}

struct rs_hash_sum rs_hash_end(struct rs_hash *h)
{
    struct rs_hash_sum sum;

    memset(h->rest + h->len % 8, 0, 8 - h->len % 8);
    h->rest[7] = (unsigned char)h->len;
    take(h, word(h->rest));
    h->v[2] ^= 0xee;
    mix(h->v, 4);
    sum.h[0] = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
    h->v[1] ^= 0xdd;
    mix(h->v, 4);
    sum.h[1] = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
    return sum;
}
