/* Where the lines of a lane's access log go: a file, or standard output.
 *
 * Lines gather in memory and are written together, by the lane itself: when there are 16 KiB of them, at
 * the end of that turn of the loop, and else 50 ms after the first. Each lane has its own descriptor on
 * the file and appends whole lines.
 *
 * Trouble:   nothing waits for the log. A pipe that nobody reads, a full disk, a reader that left: lines
 *            are dropped and counted (rserve_access_log_dropped_lines_total), one warning tells of it, and
 *            it is tried again, at most once in a second.
 * Rotation:  a file that was renamed or removed is left and made anew within a second of the next line, or
 *            at once by rs_access_log_reopen (SIGUSR1).
 * Thread:    the lane's.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "core/metrics/metrics.h"

#include <stdint.h>

struct rs_access_log;

/* `path` "-": standard output. `dropped` counts lines. */
RS_MUST_CHECK int rs_access_log_open(struct rs_access_log **ret, struct rs_loop *loop,
                                     const char *path, struct rs_series *dropped,
                                     struct rs_error *err);
void rs_access_log_free(struct rs_access_log *l); /* NULL is fine; writes what is there */
RS_DEFINE_AUTO(struct rs_access_log *, rs_access_log_free);

/* Where the next line is to be appended, with its newline; NULL: there is no room, it was dropped. */
struct rs_buf *rs_access_log_line(struct rs_access_log *l);
/* At the end of a turn: writes what is due. */
void rs_access_log_turn(struct rs_access_log *l);
void rs_access_log_flush(struct rs_access_log *l); /* now */
void rs_access_log_reopen(struct rs_access_log *l);
