/* `rserve status --events`: what happened, as lines. Pure but for rs_status_events. */
#pragma once

#include "cmd/remote.h"
#include "core/base/buf.h"

#include <jansson.h>

/* "APP[#DEPLOYMENT[#REPLICA]]", in parts; NULL: all of them. */
struct rs_status_subject {
    char *app, *deployment, *replica;
};
void rs_status_subject_parse(struct rs_status_subject *ret, const char *text);
void rs_status_subject_fini(struct rs_status_subject *s);

struct rs_events_style {
    size_t width; /* columns */
    double now;   /* wall clock, seconds; < 0: the time of day is shown, not the age */
    bool titles;
};

/* The answer of GET /api/v1/events as lines of at most `width` columns. */
void rs_events_lines(const json_t *answer, const struct rs_events_style *style, struct rs_buf *out);

struct rs_events_show {
    const struct rs_status_subject *of;
    size_t width;
    bool json;   /* the answer, or with `follow` a line for each event */
    bool follow; /* until Ctrl-C, also while the head is away */
};
/* As run of a verb. */
RS_MUST_CHECK int rs_status_events(const struct rs_remote *remote,
                                   const struct rs_events_show *show, struct rs_error *err);
