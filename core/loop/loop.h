/* One thread, one epoll set, timers, and a door for other threads.
 *
 * Units:     time is monotonic nanoseconds (int64_t).
 * Ownership: an rs_io or rs_timer is embedded in the object it serves and borrowed by the loop from
 *            start to stop. The loop never owns or closes a file descriptor: stop, then close.
 * Callbacks: run on the loop thread and must not block. One may stop and free any io or timer, its
 *            own included; events already fetched for a stopped io are dropped.
 * Order:     timers that are due (by deadline, then by start), posted calls, descriptors, then the
 *            `after` hooks in the order in which they were added; then the loop sleeps.
 * Errors:    a callback returns 0 to go on; anything else ends rs_loop_run, which returns it.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/base/list.h"

#include <stdint.h>
#include <sys/epoll.h>

struct rs_loop;

struct rs_io {
    struct rs_loop *loop; /* NULL while stopped */
    int fd;
    int (*fn)(struct rs_io *io, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR */
};

struct rs_timer {
    struct rs_loop *loop; /* NULL while stopped */
    size_t at;            /* place in the loop's heap */
    int64_t deadline;
    uint64_t seq; /* equal deadlines fire in the order of their starts */
    int (*fn)(struct rs_timer *t);
};

/* Runs at the end of every turn, before the loop sleeps: flush what the turn gathered.
 * Returns the longest time to sleep in ns, or -1 for "as long as you like". */
struct rs_after {
    struct rs_list link; /* rs_list_init before first use, or zero */
    int64_t (*fn)(struct rs_after *a);
};

RS_MUST_CHECK int rs_loop_new(struct rs_loop **ret, struct rs_error *err);
void rs_loop_free(struct rs_loop *loop); /* NULL is fine; asserts that every io is stopped */
RS_DEFINE_AUTO(struct rs_loop *, rs_loop_free);

/* Until rs_loop_stop (0) or a callback's answer other than 0. */
int rs_loop_run(struct rs_loop *loop);
/* One turn that sleeps at most `max_wait` ns; for tests and for loops inside others. */
int rs_loop_turn(struct rs_loop *loop, int64_t max_wait);
void rs_loop_stop(struct rs_loop *loop);         /* loop thread; see rs_loop_post for others */
int64_t rs_loop_now(const struct rs_loop *loop); /* sampled once per turn */

/* The only call that another thread may make: runs fn(arg) on the loop thread, soon, in order.
 * What was posted and not run when the loop is freed is run by rs_loop_free. */
void rs_loop_post(struct rs_loop *loop, void (*fn)(void *arg), void *arg);

/* `io->fd` and `io->fn` are set by the caller. */
RS_MUST_CHECK int rs_io_start(struct rs_io *io, struct rs_loop *loop, uint32_t events,
                              struct rs_error *err);
void rs_io_watch(struct rs_io *io, uint32_t events); /* changes the set; 0 pauses */
void rs_io_stop(struct rs_io *io);                   /* idempotent */

/* Starts or moves; `t->fn` is set by the caller. A deadline in the past fires in the next turn. */
void rs_timer_start(struct rs_timer *t, struct rs_loop *loop, int64_t deadline);
void rs_timer_stop(struct rs_timer *t); /* idempotent */

void rs_after_add(struct rs_loop *loop, struct rs_after *a);
void rs_after_remove(struct rs_after *a);
