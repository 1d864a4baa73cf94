/* The last lines that the processes of a node printed, in memory: with the time and the process of each,
 * the processes that are gone included. `rserve logs` reads it; the files (logfile.h) go back further, but
 * know neither time nor order. Pure: the time is handed in.
 *
 * Bounds:    RS_JOURNAL_BYTES in all. What has to go is the oldest line of the process that is printing
 *            if that has more than its share, else the oldest of all: one that prints without end does not
 *            push out what the others said.
 * Numbers:   each line has one, rising from 2. Who has seen all up to N asks for what is after N.
 * Labels:    "app#deployment#replica"; "app" and "app#role" of what belongs to an application as a whole
 *            (the import of its module, its policies). A label that comes again is another process.
 */
#pragma once

#include "core/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RS_JOURNAL_BYTES ((size_t)8 << 20)

struct rs_journal;
struct rs_journal_source; /* a process */

struct rs_journal *rs_journal_new(size_t max_bytes); /* 0: RS_JOURNAL_BYTES */
void rs_journal_free(struct rs_journal *j);
RS_DEFINE_AUTO(struct rs_journal *, rs_journal_free);

struct rs_journal_source *rs_journal_open(struct rs_journal *j, const char *label);
/* `stream`: 1, 2, or 0 for what is said about the process. `wall`: s since 1970. */
void rs_journal_add(struct rs_journal_source *s, int stream, double wall, const char *line,
                    size_t len);
/* The process ended; its lines stay. NULL is fine. */
void rs_journal_close(struct rs_journal_source *s);

/* Called when there is a line, once; then again after rs_journal_watch. */
void rs_journal_watch(struct rs_journal *j, void (*news)(void *arg), void *arg);

struct rs_journal_line {
    uint64_t seq;
    double wall;
    int stream;
    const char *label; /* borrowed, as `text` */
    const char *text;
    size_t len;
};

struct rs_journal_query {
    const char *app, *deployment, *replica; /* NULL: any */
    bool previous;                          /* only of processes that ended */
    double since;                           /* s since 1970 */
    uint64_t after;                         /* lines after this one, the oldest first .. */
    size_t last;      /* .. or, with `after` 0, so many of the newest; SIZE_MAX: all */
    size_t max_bytes; /* that an answer may have; of the newest (`last`), or the oldest (`after`) */
};

struct rs_journal_page {
    uint64_t next; /* `after` of the next question; never 0 */
    bool more;     /* there is more after `next` already */
    bool lost;     /* something after `after` is not kept any more */
};

/* Calls `fn` for each line, in order. */
void rs_journal_read(const struct rs_journal *j, const struct rs_journal_query *q,
                     void (*fn)(const struct rs_journal_line *line, void *arg), void *arg,
                     struct rs_journal_page *page);
