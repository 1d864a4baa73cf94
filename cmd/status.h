/* What `rserve status` prints, made from ServeInstanceDetails (GET /api/serve/applications/). Pure.
 *
 * What rserve adds to Ray's members, under "rserve" (sched/controller-view.c), is shown where it is
 * there: in flight, queued, our own states of replicas, why something waits, how replicas start.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <jansson.h>

struct rs_status_style {
    const char *address; /* where the details are from */
    const char *app;     /* only this application; NULL: all */
    size_t width;        /* columns */
    bool color;
    double now; /* wall clock, seconds */
};

/* "12s", "5m", "3h", "12d". */
void rs_status_age_short(char *out, size_t size, double seconds);

/* -1: there is no application of the name `style->app`. */
RS_MUST_CHECK int rs_status_table(const json_t *details, const struct rs_status_style *style,
                                  struct rs_buf *out, struct rs_error *err);
/* The document of `serve status`, or of one application of it, as YAML. */
RS_MUST_CHECK int rs_status_yaml(const json_t *details, const char *app, struct rs_buf *out,
                                 struct rs_error *err);
