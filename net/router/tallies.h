/* What became of requests, by version of the deployment: written by its home lane, read by the control
 * thread. Only a deployment of which two versions run beside each other has them.
 *
 * Ownership: made by the control thread, given to the lane, which frees them when it gets others.
 */
#pragma once

#include "core/model/tally.h"

#include <stdatomic.h>
#include <stdbool.h>

struct rs_tallies {
    struct rs_counts {
        atomic_ullong requests, errors, deaths;
        atomic_ullong bucket[RS_TALLY_BUCKETS];
    } of[2]; /* of the old version, of the new one */
};

void rs_tallies_count(struct rs_tallies *t, bool fresh, bool error);
void rs_tallies_time(struct rs_tallies *t, bool fresh, int64_t took); /* ns */
void rs_tallies_died(struct rs_tallies *t, bool fresh);
/* Any thread. Each number is right, but they may be of moments that lie a little apart. */
void rs_tallies_read(struct rs_tallies *t, struct rs_tally *old, struct rs_tally *fresh);
