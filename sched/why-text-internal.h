/* What the files that make text of reasons share: why-text.c (the table, builds, starts, health, changes),
 * why-text-place.c (what finds no room), why-text-roll.c (updates), why-text-load.c (scaling, requests).
 */
#pragma once

#include "core/base/cleanup.h"
#include "sched/why-text.h"

#include "core/base/buf.h"
#include "core/base/json.h"

#include <stdio.h>

struct rs_telling {
    const json_t *r; /* the reason */
    json_t *lines;
    struct rs_buf next;
};

/* One more line; what to do next. */
void rs_tell(struct rs_telling *t, const char *fmt, ...) RS_PRINTF(2, 3);
void rs_tell_next(struct rs_telling *t, const char *fmt, ...) RS_PRINTF(2, 3);
/* Each line of a member of the reason, as evidence. */
void rs_tell_quote(struct rs_telling *t, const char *key);
/* The same, but nothing of a single line: that is rs_tell_last_line. */
void rs_tell_quote_more(struct rs_telling *t, const char *key);

/* Members of the reason. */
static inline const char *rs_tell_str(const struct rs_telling *t, const char *key)
{
    return rs_json_str(t->r, key, "?");
}
static inline int64_t rs_tell_int(const struct rs_telling *t, const char *key)
{
    return rs_json_int(t->r, key, 0);
}
static inline double rs_tell_real(const struct rs_telling *t, const char *key)
{
    return rs_json_num(t->r, key, 0) + 0.0; /* no -0 */
}
/* Its last line: of a traceback the exception. */
const char *rs_tell_last_line(const struct rs_telling *t, const char *key);
/* The "s" of the plural. */
static inline const char *rs_tell_s(int64_t n)
{
    return n == 1 ? "" : "s";
}
/* "3.2 s", "45 s", "12 min"; returns `out`. */
const char *rs_tell_duration(char out[24], double seconds);

typedef void rs_tell_fn(struct rs_telling *t);
/* why-text-place.c */
rs_tell_fn rs_tell_no_room, rs_tell_no_node, rs_tell_no_room_together;
/* why-text-roll.c */
rs_tell_fn rs_tell_rollout_goes_on, rs_tell_rollout_no_room, rs_tell_rollout_stop_first,
    rs_tell_rollout_paused, rs_tell_rollout_canary, rs_tell_rollout_stopped;
/* why-text-load.c */
rs_tell_fn rs_tell_scale_waits, rs_tell_scale_at_most, rs_tell_scale_at_least, rs_tell_scale_stable,
    rs_tell_policy_fails, rs_tell_http_refused, rs_tell_calls_refused, rs_tell_router_fails;
