#include "net/router/split.h"

#include "core/base/hash.h"

struct rs_split rs_split_make(uint64_t version, double share, uint64_t salt)
{
    double part = share > 0 ? share < 1 ? share : 1 : 0;
    uint64_t from = RS_SPLIT_NOBODY - (uint64_t)(part * (double)RS_SPLIT_NOBODY + 0.5);

    return (struct rs_split){
        .on = true, .version = version, .salt = salt, .share = from, .from = {from, from}};
}

uint32_t rs_split_draw(const struct rs_split *s, const void *key, size_t len)
{
    struct rs_hash h;

    rs_hash_init(&h, &(struct rs_hash_key){{s->salt, 0}});
    rs_hash_put(&h, key, len);
    return (uint32_t)rs_hash_end(&h).h[0];
}

bool rs_split_settle(struct rs_split *s, const bool has[2][2])
{
    bool moved = false;

    for (int local = 0; local < 2; local++) {
        uint64_t from = has[local][0] == has[local][1] ? s->share
                        : has[local][1]                ? 0
                                                       : RS_SPLIT_NOBODY;

        moved |= s->from[local] != from;
        s->from[local] = from;
    }
    return moved;
}
