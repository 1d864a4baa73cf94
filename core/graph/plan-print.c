/* A plan as a tree for people: a step a line, what is special about it behind it. */
#include "core/graph/plan.h"

#include "core/base/alloc.h"
#include "core/base/text.h"

#include <string.h>

struct printing {
    struct rs_buf *out;
    struct rs_buf margin;
};

static void seconds(struct rs_buf *out, const char *what, int64_t ns)
{
    rs_buf_printf(out, "  %s %g s", what, (double)ns / 1e9);
}

static void size(struct rs_buf *out, uint64_t n)
{
    if (n && n % (1u << 20) == 0)
        rs_buf_printf(out, "%llu MiB", (unsigned long long)(n >> 20));
    else
        rs_buf_printf(out, "%llu bytes", (unsigned long long)n);
}

static void call(struct rs_buf *out, const struct rs_step *s)
{
    rs_text_fit(out, s->name, 60);
    if (strcmp(s->name, s->deployment) != 0) {
        rs_buf_puts(out, ": ");
        rs_text_fit(out, s->deployment, 60);
    }
    if (s->method || s->path) {
        rs_buf_printf(out, "  %s", s->method ? s->method : "");
        rs_buf_printf(out, "%s%s%s%s", s->method && s->path ? " " : "", s->path ? s->path : "",
                      s->path && *s->query ? "?" : "", s->path ? s->query : "");
    }
    if (s->retries)
        rs_buf_printf(out, "  retries %u", s->retries);
}

static void what(struct rs_buf *out, const struct rs_step *s)
{
    if (s->kind == RS_STEP_CALL) {
        call(out, s);
        return;
    }
    rs_buf_puts(out, rs_step_kind_name(s->kind));
    if (strcmp(s->name, rs_step_kind_name(s->kind)) != 0) {
        rs_buf_puts(out, " ");
        rs_text_fit(out, s->name, 60);
    }
    switch (s->kind) {
    case RS_STEP_PARALLEL:
        rs_buf_printf(out, "  merge %s%s%s", rs_merge_name(s->merge), *s->field ? " of " : "",
                      s->field);
        if (s->need < s->n_kids)
            rs_buf_printf(out, "  %u of %u must succeed", s->need, s->n_kids);
        break;
    case RS_STEP_SWITCH:
        rs_buf_printf(out, "  by %s%s",
                      s->by == RS_SWITCH_HEADER ? "header "
                      : s->by == RS_SWITCH_JSON ? "field "
                      : s->header               ? "weight, sticky by header "
                                                : "weight",
                      s->by == RS_SWITCH_JSON ? s->field
                      : s->header             ? s->header
                                              : "");
        break;
    case RS_STEP_SPLIT:
        rs_buf_printf(out, "  elements%s%s, %u at a time, at most %u", *s->field ? " of " : "",
                      s->field, s->parallelism, s->max_items);
        break;
    case RS_STEP_FALLBACK:
        rs_buf_puts(out, "  on");
        for (unsigned o = RS_OUTCOME_ERROR; o < RS_OUTCOME_COUNT; o++) {
            if (s->on & 1u << o)
                rs_buf_printf(out, " %s", rs_outcome_name((enum rs_outcome)o));
        }
        break;
    case RS_STEP_ANSWER:
        rs_buf_printf(out, "  %u", s->status);
        break;
    default:
        break;
    }
}

static void options(struct rs_buf *out, const struct rs_step *s)
{
    if (s->timeout)
        seconds(out, "timeout", s->timeout);
    if (s->cache.ttl) {
        seconds(out, "cache", s->cache.ttl);
        rs_buf_puts(out, ", ");
        size(out, s->cache.max_bytes);
        for (unsigned i = 0; i < s->cache.n_headers; i++)
            rs_buf_printf(out, "%s%s", i ? " " : ", by ", s->cache.headers[i]);
    }
}

/* How its parent comes to it. */
static void edge(struct rs_buf *out, const struct rs_step *s)
{
    const struct rs_step *p = s->parent;

    if (!p)
        return;
    if (p->shadow.to == s)
        rs_buf_printf(out, "shadow of %g %%, at most %u: ", p->shadow.share * 100, p->shadow.limit);
    else if (p->kind == RS_STEP_SWITCH && p->by == RS_SWITCH_WEIGHT)
        rs_buf_printf(out, "%g: ", p->weights[s->at]);
    else if (p->kind == RS_STEP_SWITCH && p->has_default && s->at + 1 == p->n_kids)
        rs_buf_puts(out, "else: ");
    else if (p->kind == RS_STEP_SWITCH) {
        rs_text_fit(out, p->values[s->at], 40);
        rs_buf_puts(out, ": ");
    }
}

static void node(struct printing *p, const struct rs_step *s)
{
    unsigned n = s->n_kids + (s->shadow.to != NULL);
    size_t back = rs_buf_len(&p->margin);

    edge(p->out, s);
    what(p->out, s);
    options(p->out, s);
    rs_buf_puts(p->out, "\n");
    for (unsigned i = 0; i < n; i++) {
        bool last = i + 1 == n;

        rs_buf_puts(p->out, rs_buf_text(&p->margin));
        rs_buf_puts(p->out, last ? "└─ " : "├─ ");
        rs_buf_puts(&p->margin, last ? "   " : "│  ");
        node(p, i < s->n_kids ? s->kids[i] : s->shadow.to);
        p->margin.end = p->margin.start + back;
        p->margin.data[p->margin.end] = '\0';
    }
}

void rs_plan_print(const struct rs_plan *p, struct rs_buf *out)
{
    struct printing printing = {.out = out};

    node(&printing, p->steps[0]);
    rs_buf_fini(&printing.margin);
}
