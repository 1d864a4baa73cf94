/* What is wrong with a configuration: all of it, each with its place.
 *
 *     app.yaml:12:7: applications[0].deployments[1].num_replicas: expected an integer >= 1 or "auto", got "two"
 *     app.yaml:9:5: warning: applications[0].route_prefx: unknown key, ignored; did you mean "route_prefix"?
 *
 * Ownership: {0} is valid and empty; rs_diags_fini releases; texts are owned by the collection.
 * Limits:    RS_DIAGS_MAX are kept, and as many more that are errors; the rest is counted in
 *            `dropped`.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <stdarg.h>

#define RS_DIAGS_MAX 200

enum rs_severity { RS_WARNING, RS_ERROR };

struct rs_diag {
    enum rs_severity severity;
    /* Only errors: Ray accepts the file and this application then ends DEPLOY_FAILED. REST answers
     * 200 for these; `rserve run --check` reports them like any other. */
    bool deploy_time;
    int line, column; /* from 1; 0: not known */
    char *file;       /* NULL: not known */
    char *path;       /* "applications[0].name", or "" for the document */
    char *text;       /* one line */
};

struct rs_diags {
    struct rs_diag *items;
    size_t count, cap, dropped;
    size_t errors, warnings, deploy_errors; /* errors counts deploy_errors too */
};

/* What rs_diags_add needs to know besides the text. */
struct rs_diag_at {
    const char *file, *path;
    int line, column;
    bool deploy_time;
};

void rs_diags_fini(struct rs_diags *d);
void rs_diags_add(struct rs_diags *d, enum rs_severity severity, const struct rs_diag_at *at,
                  const char *fmt, ...) RS_PRINTF(4, 5);
void rs_diags_vadd(struct rs_diags *d, enum rs_severity severity, const struct rs_diag_at *at,
                   const char *fmt, va_list args) RS_PRINTF(4, 0);

/* By line and column; equal ones stay in the order in which they came. */
void rs_diags_sort(struct rs_diags *d);
/* Appends one line without its newline: place, path, text. */
void rs_diag_print(struct rs_buf *out, const struct rs_diag *d);
/* Appends every one with a newline, and a line that says how many were dropped. */
void rs_diags_print(struct rs_buf *out, const struct rs_diags *d);
/* Errors that refuse the whole document (those that are not deploy_time). */
static inline size_t rs_diags_schema_errors(const struct rs_diags *d)
{
    return d->errors - d->deploy_errors;
}
/* The first error becomes `err` (RS_INVALID, "... (and 3 more)"). Returns -1 if there is one, else 0.
 */
int rs_diags_to_error(const struct rs_diags *d, struct rs_error *err);
