/* What replicas print: split into lines, prefixed, passed on to our own stdout or stderr, and kept
 * in rotated files.
 *
 *   (rag#Generator#ab12cd34) loading the model
 *
 * A replica that prints without end cannot grow memory (lines are cut at RS_CAPTURE_LINE bytes and
 * go on in the next one) or the disk (files rotate). A full disk or a full terminal never stops
 * serving: what does not fit is dropped and counted, with one warning per trouble.
 *
 * Thread:    the loop's.
 * Ownership: descriptors given are taken.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "sched/supervise/journal.h"

#include <stdint.h>

#define RS_CAPTURE_LINE 16384

struct rs_capture_conf {
    const char *dir;   /* log folder, must exist; NULL: no files */
    uint64_t max_file; /* bytes after which a file becomes NAME.1; 0: 16 MiB */
    unsigned keep;     /* rotated ones that are kept; 0: 3 */
    bool echo;         /* pass on to our stdout and stderr */
    int colour;        /* prefix in colour: 1 yes, 0 no, -1: if it is a terminal and no NO_COLOR */
};

struct rs_capture_hub; /* what all captures of a node share */
RS_MUST_CHECK int rs_capture_hub_new(struct rs_capture_hub **ret, struct rs_loop *loop,
                                     const struct rs_capture_conf *conf, struct rs_error *err);
void rs_capture_hub_free(struct rs_capture_hub *h); /* after its captures */
RS_DEFINE_AUTO(struct rs_capture_hub *, rs_capture_hub_free);
/* Lines that were dropped so far because a file or a stream would not take them. */
uint64_t rs_capture_dropped(const struct rs_capture_hub *h);
/* Called for each echoed line instead of writing it, for a progress display that owns the terminal;
 * NULL: write. */
void rs_capture_hub_sink(struct rs_capture_hub *h,
                         void (*sink)(int stream, const char *line, size_t len, void *arg),
                         void *arg);

/* Borrowed; keeps the last lines of everybody. */
struct rs_journal *rs_capture_journal(struct rs_capture_hub *h);

struct rs_capture; /* stdout and stderr of one process */
/* `label` "app#deployment#replica" is the prefix; the file is its label with # as _, ".log". Makes two
 * pipes: the write ends are returned for the child (the caller closes them after the spawn). */
RS_MUST_CHECK int rs_capture_new(struct rs_capture **ret, struct rs_capture_hub *h,
                                 const char *label, int *out_fd, int *err_fd, struct rs_error *err);
/* Reads what is still in the pipes without waiting; then closes. */
void rs_capture_free(struct rs_capture *c);
RS_DEFINE_AUTO(struct rs_capture *, rs_capture_free);
/* Reads what is in the pipes now: before asking for the tail of a process that just ended. */
void rs_capture_drain(struct rs_capture *c);
/* The process ended so (as of waitpid): the journal says it. */
void rs_capture_ended(struct rs_capture *c, int wait_status);
/* The last lines (up to some 4 KiB) of stderr, borrowed until the next read; "" if none. */
const char *rs_capture_tail(const struct rs_capture *c);
const char *rs_capture_path(const struct rs_capture *c); /* NULL: no file */

/* Path of the file of a label, without a capture. The caller's. */
char *rs_capture_path_of(const char *dir, const char *label);
