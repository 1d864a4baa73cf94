#include "cmd/progress-internal.h"

#include "core/base/alloc.h"

#include <string.h>

bool rs_progress_is_busy(const char *status)
{
    return strcmp(status, "DEPLOYING") == 0 || strcmp(status, "NOT_STARTED") == 0 ||
           strcmp(status, "DELETING") == 0;
}

bool rs_progress_is_failed(const char *status)
{
    return strcmp(status, "DEPLOY_FAILED") == 0 || strcmp(status, "UNHEALTHY") == 0;
}

static const char *text_of(const char *text)
{
    return text ? text : "";
}

struct rs_progress *rs_progress_new(const struct rs_progress_conf *conf, int64_t now)
{
    struct rs_progress *p = rs_alloc(sizeof(*p));

    p->conf = *conf;
    p->conf.color = conf->color && !conf->json;
    p->url = rs_strdup(text_of(conf->url));
    p->conf.url = p->url;
    p->begun = p->now = now;
    return p;
}

static void deployment_free(struct deployment *d)
{
    free(d->status);
    free(d->message);
    free(d);
}

static void app_free(struct app *a)
{
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        struct deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d)
            deployment_free(d);
    }
    rs_map_fini(&a->deployments);
    free(a->status);
    free(a->message);
    free(a);
}

void rs_progress_free(struct rs_progress *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < rs_map_slots(&p->apps); i++) {
        struct app *a = rs_map_at(&p->apps, i, NULL);

        if (a)
            app_free(a);
    }
    rs_map_fini(&p->apps);
    rs_buf_fini(&p->block);
    free(p->url);
    free(p);
}

/* --- what has changed ------------------------------------------------------------------------------ */

/* Puts `text` into *slot; true if that is a change. */
static bool replace(char **slot, const char *text)
{
    if (*slot && strcmp(*slot, text) == 0)
        return false;
    free(*slot);
    *slot = rs_strdup(text);
    return true;
}

/* A block shows it all; lines tell what is complete, what is stuck and why, or with -v everything. */
static bool is_worth_a_line(const struct rs_progress *p, const struct rs_progress_deployment *d,
                            bool counted, bool explained, bool busy)
{
    if (p->conf.json || p->conf.verbose)
        return true;
    if (p->conf.tty || !busy)
        return false;
    return (counted && d->running == d->target) || (explained && text_of(d->message)[0]);
}

static void feed_deployment(const struct rs_progress *p, struct app *a, const char *app, bool busy,
                            const struct rs_progress_deployment *d, struct rs_buf *out)
{
    struct deployment *known = rs_map_get(&a->deployments, d->name);
    bool counted, explained, changed, is_new = !known;

    if (!known) {
        known = rs_alloc(sizeof(*known));
        known->target = -1;
        rs_map_put(&a->deployments, d->name, known);
    }
    known->seen = true;
    counted = known->running != d->running || known->target != d->target;
    changed = replace(&known->status, text_of(d->status));
    explained = replace(&known->message, text_of(d->message));
    known->running = d->running;
    known->target = d->target;
    if (rs_progress_is_failed(text_of(d->status))) {
        if ((changed || explained) && !(is_new && busy)) /* of an earlier try */
            rs_progress_say_failed(p, out, app, d->name, d->status, text_of(d->message));
        return;
    }
    if (!p->conf.quiet && (counted || changed || explained) &&
        is_worth_a_line(p, d, counted || changed, explained, busy))
        rs_progress_say_deployment(p, out, app, d);
}

static void forget_deployments(struct app *a)
{
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        const char *name;
        struct deployment *d = rs_map_at(&a->deployments, i, &name);

        if (!d)
            continue;
        if (!d->seen) {
            rs_map_remove(&a->deployments, name);
            deployment_free(d);
        } else {
            d->seen = false;
        }
    }
}

static struct app *app_of(struct rs_progress *p, const char *name)
{
    struct app *a = rs_map_get(&p->apps, name);

    if (!a) {
        a = rs_alloc(sizeof(*a));
        a->status = rs_strdup("");
        a->message = rs_strdup("");
        a->begun = p->fed ? p->now : p->begun;
        rs_map_put(&p->apps, name, a);
    }
    return a;
}

/* A failed deployment says more than "Failed to update the deployments ['A'].", unless only the
 * application brings the traceback. */
static bool says_more(const struct rs_progress_app *a)
{
    bool deployment = false, traced = false;

    for (size_t i = 0; i < a->n_deployments; i++) {
        const struct rs_progress_deployment *d = &a->deployments[i];

        if (rs_progress_is_failed(text_of(d->status))) {
            deployment = true;
            traced = traced || rs_progress_has_traceback(text_of(d->message));
        }
    }
    return !deployment || (!traced && rs_progress_has_traceback(text_of(a->message)));
}

static void feed_app(struct rs_progress *p, const struct rs_progress_app *now, struct rs_buf *out)
{
    struct app *a = app_of(p, now->name);
    const char *status = text_of(now->status);
    bool was_busy = rs_progress_is_busy(a->status), is_new = !a->status[0];
    bool busy = rs_progress_is_busy(status), failed = rs_progress_is_failed(status);
    bool changed, explained;

    a->seen = true;
    if (busy && !was_busy && !is_new)
        a->begun = p->now;
    changed = replace(&a->status, status);
    explained = replace(&a->message, text_of(now->message));
    if ((changed || (busy && explained && a->message[0])) && !p->conf.quiet && !failed &&
        strcmp(status, "RUNNING") != 0 && (!p->conf.tty || p->conf.json))
        rs_progress_say_app(p, out, now);
    for (size_t i = 0; i < now->n_deployments; i++)
        feed_deployment(p, a, now->name, busy || was_busy, &now->deployments[i], out);
    forget_deployments(a);
    if (changed && !p->conf.quiet && strcmp(status, "RUNNING") == 0) {
        if (was_busy || is_new)
            rs_progress_say_ready(p, out, now, p->now - a->begun);
        else
            rs_progress_say_app(p, out, now); /* well again */
    }
    if (failed && (changed || explained) && says_more(now))
        rs_progress_say_failed(p, out, now->name, NULL, status, a->message);
    p->busy += busy;
    p->failed += failed;
}

static void forget_apps(struct rs_progress *p, struct rs_buf *out)
{
    for (size_t i = 0; i < rs_map_slots(&p->apps); i++) {
        const char *name;
        struct app *a = rs_map_at(&p->apps, i, &name);

        if (!a)
            continue;
        if (!a->seen) {
            if (!p->conf.quiet)
                rs_progress_say_gone(p, out, name);
            rs_map_remove(&p->apps, name);
            app_free(a);
        } else {
            a->seen = false;
        }
    }
}

/* --- the block ------------------------------------------------------------------------------------- */

static void erase(struct rs_progress *p, struct rs_buf *out)
{
    if (p->block_lines)
        rs_buf_printf(out, "\r\x1b[%zuA\x1b[J", p->block_lines);
}

void rs_progress_feed(struct rs_progress *p, const struct rs_progress_snapshot *s, int64_t now,
                      struct rs_buf *out)
{
    rs_auto(rs_buf_fini) struct rs_buf events = {0}, block = {0};
    size_t lines = 0;

    p->now = now;
    p->busy = p->failed = 0;
    for (size_t i = 0; i < s->n_apps; i++)
        feed_app(p, &s->apps[i], &events);
    forget_apps(p, &events);
    p->fed = true;
    if (p->busy && p->conf.tty && !p->conf.quiet && !p->conf.json)
        lines = rs_progress_draw(p, s, &block);
    if (rs_buf_len(&events) == 0 && strcmp(rs_buf_text(&block), rs_buf_text(&p->block)) == 0)
        return;
    erase(p, out);
    rs_buf_append(out, rs_buf_text(&events), rs_buf_len(&events));
    rs_buf_append(out, rs_buf_text(&block), rs_buf_len(&block));
    rs_buf_clear(&p->block);
    rs_buf_append(&p->block, rs_buf_text(&block), rs_buf_len(&block));
    p->block_lines = lines;
}

void rs_progress_note(struct rs_progress *p, const char *text, bool always, struct rs_buf *out)
{
    if (!text[0] || (p->conf.quiet && !always))
        return;
    erase(p, out);
    rs_progress_say_note(p, out, text);
    rs_buf_append(out, rs_buf_text(&p->block), rs_buf_len(&p->block));
}

void rs_progress_end(struct rs_progress *p, struct rs_buf *out)
{
    erase(p, out);
    rs_buf_clear(&p->block);
    p->block_lines = 0;
}

size_t rs_progress_busy(const struct rs_progress *p)
{
    return p->busy;
}

size_t rs_progress_failed(const struct rs_progress *p)
{
    return p->failed;
}
