/* Events on the disk: rs_events <-> rs_records (kind "event", one record for each place of the ring, so
 * that the file does not grow with what happens).
 *
 * Batched:  rs_events_due says when to write: a second after something new, ten after mere repeats. What
 *           happened since the last batch is lost by kill -9.
 * Numbers:  a record says below which the numbers are taken, some ahead of what was given: after a
 *           restart none is given twice, also of those that were lost.
 */
#pragma once

#include "core/base/error.h"
#include "core/events/ring.h"
#include "core/store/records.h"

#define RS_EVENTS_KIND "event"            /* records of the ring */
#define RS_EVENTS_NUMBER_KIND "event-seq" /* the record of the numbers */

/* What an earlier process kept, before anything is added. What cannot be read is left out; *left_out
 * counts it (may be NULL). */
RS_MUST_CHECK int rs_events_load(struct rs_events *e, struct rs_records *r, size_t *left_out,
                                 struct rs_error *err);
/* Writes what changed, in one transaction. On failure it stays to be written. */
RS_MUST_CHECK int rs_events_save(struct rs_events *e, struct rs_records *r, struct rs_error *err);
/* When to save next; `saved_at`: the last time; both monotonic ns. INT64_MAX: nothing to write. */
int64_t rs_events_due(const struct rs_events *e, int64_t saved_at);
