/* What `rserve run` shows of a deploy. Pure: snapshots and `now` go in, text to write comes out.
 *
 * On a terminal: one block, redrawn in place, while an application is under way; elsewhere a line per
 * change. Either way one line at the end, "ready: rag  http://127.0.0.1:8000/  4 deployments, 6
 * replicas, 0.41 s", or the user's own traceback and "failed: rag: ...".
 *
 * Units:  now is monotonic nanoseconds.
 * Thread: one. Whatever else writes to the same terminal must come through rs_progress_note, or it
 *         ends up inside the block.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

struct rs_progress;

struct rs_progress_conf {
    bool tty, color;
    size_t width, height; /* of the terminal */
    bool quiet;           /* failures only */
    bool verbose;         /* each change of a deployment, also after ready */
    bool json;            /* a JSON object per line and change; no block, no colour */
    const char *url;      /* "http://127.0.0.1:8000"; "" if there is no HTTP listener */
};

/* Texts are Ray's: statuses as in reference/details, NULL is "". */
struct rs_progress_deployment {
    const char *name, *status, *message;
    int running, target; /* replicas */
};

struct rs_progress_app {
    const char *name, *route_prefix; /* route_prefix NULL: not on HTTP */
    const char *status, *message;
    const struct rs_progress_deployment *deployments;
    size_t n_deployments;
};

struct rs_progress_snapshot {
    const struct rs_progress_app *apps;
    size_t n_apps;
};

/* `now` is when the work began. */
struct rs_progress *rs_progress_new(const struct rs_progress_conf *conf, int64_t now);
void rs_progress_free(struct rs_progress *p);
RS_DEFINE_AUTO(struct rs_progress *, rs_progress_free);

/* Appends what to write now. Call it on each change, and every 100 ms while rs_progress_busy. */
void rs_progress_feed(struct rs_progress *p, const struct rs_progress_snapshot *s, int64_t now,
                      struct rs_buf *out);
/* Appends a line of something else, above the block. `text` may hold several; they are shown as they
 * are. In JSON: {"event": "note", ...}. Left out when quiet, unless `always`. */
void rs_progress_note(struct rs_progress *p, const char *text, bool always, struct rs_buf *out);
/* Erases the block: call it before the program ends or writes on its own. */
void rs_progress_end(struct rs_progress *p, struct rs_buf *out);

/* Of the last snapshot: applications under way, and those that failed. */
size_t rs_progress_busy(const struct rs_progress *p);
size_t rs_progress_failed(const struct rs_progress *p);

/* The traceback in `message` without the frames of rserve itself and of Python's import machinery, or
 * the several lines that follow a first line that ends with a colon; nothing if there is neither. */
void rs_progress_traceback(struct rs_buf *out, const char *message);
/* `message` in one line: what it says first, and the exception that its traceback ends with. */
void rs_progress_oneline(struct rs_buf *out, const char *message);
