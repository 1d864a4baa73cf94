/* Accepting connections while there are no descriptors: a listener that is watched all the same would
 * keep its loop busy with accepts that fail. It is left alone for a while, and that is said once.
 *
 * Thread:    the loop's.
 * Ownership: embedded; `io` and `loop` are borrowed.
 */
#pragma once

#include "core/loop/loop.h"

#include <stdbool.h>

struct rs_starved {
    struct rs_io *io; /* what is watched with EPOLLIN for new connections */
    struct rs_loop *loop;
    const char *what; /* who accepts, for the log; static */
    struct rs_timer timer;
    bool told;
    int64_t failed_at;
};

void rs_starved_init(struct rs_starved *s, struct rs_io *io, struct rs_loop *loop,
                     const char *what);
/* An accept failed with this errno: true if that was for want of something, and the listener rests. */
bool rs_starved_failed(struct rs_starved *s, int error);
/* An accept succeeded. */
void rs_starved_accepted(struct rs_starved *s);
void rs_starved_stop(struct rs_starved *s); /* idempotent; before the io is stopped */
