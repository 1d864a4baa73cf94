/* What happened, for those who ask later: events of the controller -> the ring, its file, REST.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/store/records.h"
#include "net/api/api.h"
#include "sched/controller.h"

struct rs_happened;

/* `records` NULL: nothing is kept; else borrowed, and what they have is read. */
void rs_happened_new(struct rs_happened **ret, struct rs_records *records);
/* Writes what is left to be written. Not before rs_api_free: nobody is answered any more. */
void rs_happened_free(struct rs_happened *h);
RS_DEFINE_AUTO(struct rs_happened *, rs_happened_free);

void rs_happened_add(struct rs_happened *h, const struct rs_controller_event *e);
/* Writes a batch if one is due, and answers those that wait. When to come again, monotonic ns; INT64_MAX: no need. */
int64_t rs_happened_turn(struct rs_happened *h, int64_t now);

/* GET /api/v1/events: ?after=, ?limit=, ?wait=, ?app=, ?deployment=, ?replica=, ?kind=. As rs_api_fn. Of
 * those that wait there are 64 at most; a further one is answered at once. */
RS_MUST_CHECK int rs_happened_ask(struct rs_happened *h, const struct rs_api_call *call,
                                  json_t **ret, struct rs_error *err);
