/* What a request would like beside a free slot: a replica that has its model loaded, the replica that
 * had its session before. Pure.
 *
 * Names are kept as hashes: two that meet only cost a worse choice.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rs_wish {
    uint64_t model, session; /* rs_wish_hash; 0: none */
};

/* Models that a backend has loaded or is loading. */
enum { RS_MODELS_MAX = 64 };
struct rs_models {
    bool known; /* it tells of them */
    unsigned n;
    uint64_t at[RS_MODELS_MAX]; /* the last ones, if there are more */
};

uint64_t rs_wish_hash(const char *text, size_t len); /* never 0, but for len 0 */

bool rs_models_have(const struct rs_models *m, uint64_t model);
void rs_models_clear(struct rs_models *m); /* it tells of them: none yet */
void rs_models_add(struct rs_models *m, uint64_t model);

/* How much a session belongs to a backend: the highest of all that are there has it. When one comes
 * or goes, only the sessions that it gets or had move. */
uint64_t rs_session_weight(uint64_t session, uint64_t backend);
