/* Which configurations of each application ran, so that one can be taken up again. A plain value of facts:
 * no clock, no application; the controller says what ran, and keeps what is here over a restart.
 *
 * A configuration is {"dir", "app_dir", "document"} with one application in the document. One that ran
 * gets a revision, unless it is the one that ran last; the last RS_HISTORY_MAX of each application are
 * kept, and those of RS_HISTORY_APPS applications that are there no more.
 *
 * Thread:    the caller's.
 * Ownership: JSON is copied.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>

enum { RS_HISTORY_MAX = 10, RS_HISTORY_APPS = 100 };

struct rs_history {
    json_t *apps; /* {name: {"next", "revisions": [entry]}}, the oldest first; NULL: none */
};

struct rs_history_entry {
    const json_t *config;
    bool program;        /* a program deployed it, not the configuration of all applications */
    const char *who;     /* ordered it; NULL: not known */
    double time_s;       /* since 1970: it runs from here */
    int64_t rollback_of; /* 0: none */
};

void rs_history_fini(struct rs_history *h);
/* It runs. False: it did already. */
bool rs_history_ran(struct rs_history *h, const char *app, const struct rs_history_entry *e);
/* {"revision", "config", "program", "time_s", "who", "rollback_of"} of a revision; 0: the last one that ran
 * and is not `now` (NULL: the application is not there). Borrowed. RS_NOT_FOUND: no
 * such revision; RS_CONFLICT: there is no other one. */
RS_MUST_CHECK int rs_history_find(const struct rs_history *h, const char *app, int64_t revision,
                                  const json_t *now, const json_t **ret, struct rs_error *err);
/* {"name", "revisions": newest first, with "current", "back_to": revision or null}. New; NULL: nothing of that
 * name ever ran. */
json_t *rs_history_list(const struct rs_history *h, const char *app, const json_t *now);
/* Applications for which `there` is false count as gone: too many of those are forgotten. */
void rs_history_prune(struct rs_history *h, bool (*there)(const char *app, void *arg), void *arg);

/* {app: ..}, for rs_history_restore. Borrowed; NULL: nothing. */
const json_t *rs_history_json(const struct rs_history *h);
/* Of an earlier head. What is not as rs_history_json tells it is left out. */
void rs_history_restore(struct rs_history *h, const char *app, const json_t *kept);
