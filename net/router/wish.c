#include "net/router/wish.h"

#include <string.h>

/* The finaliser of splitmix64: every bit of `x` moves every bit of the result. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t rs_wish_hash(const char *text, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    if (!len)
        return 0;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    h = mix(h);
    return h ? h : 1;
}

bool rs_models_have(const struct rs_models *m, uint64_t model)
{
    for (unsigned i = 0; i < m->n; i++) {
        if (m->at[i] == model)
            return true;
    }
    return false;
}

void rs_models_clear(struct rs_models *m)
{
    m->known = true;
    m->n = 0;
}

void rs_models_add(struct rs_models *m, uint64_t model)
{
    if (rs_models_have(m, model))
        return;
    if (m->n == RS_MODELS_MAX)
        memmove(m->at, m->at + 1, --m->n * sizeof(m->at[0]));
    m->at[m->n++] = model;
}

uint64_t rs_session_weight(uint64_t session, uint64_t backend)
{
    return mix(session ^ mix(backend));
}
