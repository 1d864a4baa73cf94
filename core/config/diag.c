#include "core/config/diag.h"

#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

void rs_diags_fini(struct rs_diags *d)
{
    for (size_t i = 0; i < d->count; i++) {
        free(d->items[i].file);
        free(d->items[i].path);
        free(d->items[i].text);
    }
    free(d->items);
    *d = (struct rs_diags){0};
}

void rs_diags_vadd(struct rs_diags *d, enum rs_severity severity, const struct rs_diag_at *at,
                   const char *fmt, va_list args)
{
    bool deploy_time = severity == RS_ERROR && at->deploy_time;

    d->errors += severity == RS_ERROR;
    d->warnings += severity == RS_WARNING;
    d->deploy_errors += deploy_time;
    if (d->count >= (severity == RS_ERROR ? 2 * RS_DIAGS_MAX : RS_DIAGS_MAX)) {
        d->dropped++;
        return;
    }
    d->items = rs_grow(d->items, &d->cap, d->count + 1, sizeof(*d->items));
    d->items[d->count++] = (struct rs_diag){
        .severity = severity,
        .deploy_time = deploy_time,
        .line = at->line,
        .column = at->column,
        .file = rs_strdup(at->file),
        .path = rs_strdup(at->path ? at->path : ""),
        .text = rs_vasprintf(fmt, args),
    };
}

void rs_diags_add(struct rs_diags *d, enum rs_severity severity, const struct rs_diag_at *at,
                  const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    rs_diags_vadd(d, severity, at, fmt, args);
    va_end(args);
}

static bool later(const struct rs_diag *a, const struct rs_diag *b)
{
    return a->line != b->line ? a->line > b->line : a->column > b->column;
}

void rs_diags_sort(struct rs_diags *d)
{
    /* Insertion: they come nearly sorted, and are few. */
    for (size_t i = 1; i < d->count; i++) {
        struct rs_diag one = d->items[i];
        size_t at = i;

        for (; at > 0 && later(&d->items[at - 1], &one); at--)
            d->items[at] = d->items[at - 1];
        d->items[at] = one;
    }
}

void rs_diag_print(struct rs_buf *out, const struct rs_diag *d)
{
    if (d->file)
        rs_buf_puts(out, d->file);
    if (d->line)
        rs_buf_printf(out, "%s%d:%d", d->file ? ":" : "", d->line, d->column);
    if (d->file || d->line)
        rs_buf_puts(out, ": ");
    if (d->severity == RS_WARNING)
        rs_buf_puts(out, "warning: ");
    if (d->path[0])
        rs_buf_printf(out, "%s: ", d->path);
    rs_buf_puts(out, d->text);
}

void rs_diags_print(struct rs_buf *out, const struct rs_diags *d)
{
    for (size_t i = 0; i < d->count; i++) {
        rs_diag_print(out, &d->items[i]);
        rs_buf_puts(out, "\n");
    }
    if (d->dropped)
        rs_buf_printf(out, "and %zu more\n", d->dropped);
}

int rs_diags_to_error(const struct rs_diags *d, struct rs_error *err)
{
    for (size_t i = 0; i < d->count; i++) {
        struct rs_buf line = {0};

        if (d->items[i].severity != RS_ERROR)
            continue;
        rs_diag_print(&line, &d->items[i]);
        if (d->errors > 1)
            rs_error_set(err, RS_INVALID, "%.440s (and %zu more)", rs_buf_text(&line),
                         d->errors - 1);
        else
            rs_error_set(err, RS_INVALID, "%s", rs_buf_text(&line));
        rs_buf_fini(&line);
        return -1;
    }
    return d->errors ? rs_error_set(err, RS_INVALID, "%zu errors", d->errors) : 0;
}
