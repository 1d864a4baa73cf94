/* Which requests a replica has begun to work on, told through memory that it shares with the node: known
 * exactly also of one that was killed, whatever it had read, and without a frame.
 *
 * The replica gets a memfd of RS_STARTS_SIZE bytes with INIT (PROTOCOL.md, "Replica"): two rows of
 * RS_STARTS numbers of 64 bits. Just before work on the request with stream n begins it writes n to the
 * first row at (n / 2) % RS_STARTS, then looks at the second row: where that says n too, the node has
 * taken the request back, and the replica leaves it: it writes n - 1 in the place of n, and sends CANCEL,
 * since the node may have read n in between and have left the request to it. A place that was used by a later stream since tells
 * nothing: that request counts as begun.
 *
 * Thread: the lane's; the memory is the replica's too.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { RS_STARTS = 512, RS_STARTS_SIZE = 2 * RS_STARTS * 8 };

struct rs_starts;

/* `*fd` is for the replica, and the caller's. */
RS_MUST_CHECK int rs_starts_new(struct rs_starts **ret, int *fd, struct rs_error *err);
void rs_starts_free(struct rs_starts *s); /* NULL is fine */
RS_DEFINE_AUTO(struct rs_starts *, rs_starts_free);
/* Of a replica that has ended. */
bool rs_starts_begun(const struct rs_starts *s, uint64_t stream);
/* Of one that runs: takes the requests with these streams back. `kept[i]`: that one has begun, and stays.
 * The others will not be begun. */
void rs_starts_take_back(struct rs_starts *s, const uint64_t *streams, bool *kept, size_t n);
