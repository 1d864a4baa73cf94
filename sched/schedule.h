/* Which entry of `rserve: {autoscaling: {schedule}}` is in force when.
 *
 * Of all entries the one that began last, by its cron line in its time zone; of those that began at the
 * same instant, the last in the list. One with a duration ends, and what began before it is in force
 * again. What is in force follows from the time alone, not from when a deployment was made.
 *
 * Units:     seconds since the epoch.
 * Ownership: rs_schedule_free. It copies what it needs.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct rs_schedule;

struct rs_schedule_now {
    int entry;               /* place in the list; -1: none is in force */
    const char *cron, *zone; /* of it; borrowed */
    int min_replicas;
    int64_t since;
    int64_t until; /* nothing changes before; INT64_MAX: nor after */
};

/* `list` as in the configuration. Fails where a line is no cron line, or a time zone is not there. */
RS_MUST_CHECK int rs_schedule_new(struct rs_schedule **ret, const json_t *list,
                                  struct rs_error *err);
void rs_schedule_free(struct rs_schedule *s);
RS_DEFINE_AUTO(struct rs_schedule *, rs_schedule_free);

struct rs_schedule_now rs_schedule_at(const struct rs_schedule *s, int64_t t);
