#include "cmd/far_metrics.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

enum { PATIENCE_MS = 2000 };

struct scrape {
    struct rs_list in;
    struct rs_timer late;
    struct rs_far_metrics *of;
    struct rs_web_later *later;
    rs_api_form *form;
    char *form_arg;
    uint64_t number;
};

struct rs_far_metrics {
    struct rs_loop *loop;
    struct rs_far_metrics_ops ops;
    void *arg;
    struct rs_list scrapes;
    uint64_t asked;
};

static void scrape_free(struct scrape *s)
{
    rs_list_remove(&s->in);
    rs_timer_stop(&s->late);
    free(s->form_arg);
    free(s);
}

static void answer(const struct rs_far_metrics *m, struct rs_web_answer *a, rs_api_form *form,
                   const char *form_arg, const char *text)
{
    rs_auto(rs_buf_fini) struct rs_buf all = {0};

    m->ops.complete(&all, text, m->arg);
    form(a, rs_buf_text(&all), form_arg);
}

static void finish(struct scrape *s, const char *text)
{
    struct rs_web_answer a = {0};

    answer(s->of, &a, s->form, s->form_arg, text);
    rs_web_later_answer(s->later, &a);
    scrape_free(s);
}

static int on_late(struct rs_timer *t)
{
    finish(rs_container_of(t, struct scrape, late), NULL);
    return 0;
}

struct rs_far_metrics *rs_far_metrics_new(struct rs_loop *loop,
                                          const struct rs_far_metrics_ops *ops, void *arg)
{
    struct rs_far_metrics *m = rs_alloc(sizeof(*m));

    m->loop = loop;
    m->ops = *ops;
    m->arg = arg;
    rs_list_init(&m->scrapes);
    return m;
}

void rs_far_metrics_free(struct rs_far_metrics *m)
{
    if (!m)
        return;
    while (!rs_list_empty(&m->scrapes))
        scrape_free(rs_container_of(m->scrapes.next, struct scrape, in));
    free(m);
}

void rs_far_metrics_get(struct rs_far_metrics *m, const struct rs_web_request *req,
                        struct rs_web_answer *a, rs_api_form *form, const char *form_arg)
{
    struct scrape *s;

    if (m->ops.ask(++m->asked, m->arg) < 0) {
        answer(m, a, form, form_arg, NULL);
        return;
    }
    s = rs_alloc(sizeof(*s));
    s->of = m;
    s->number = m->asked;
    s->form = form;
    s->form_arg = rs_strdup(form_arg);
    s->later = rs_web_wait(req);
    s->late.fn = on_late;
    rs_list_init(&s->in);
    rs_list_push_back(&m->scrapes, &s->in);
    rs_timer_start(&s->late, m->loop, rs_clock_now() + PATIENCE_MS * RS_MS);
}

void rs_far_metrics_told(struct rs_far_metrics *m, uint64_t number, const char *text)
{
    rs_list_for_each (it, &m->scrapes) {
        struct scrape *s = rs_container_of(it, struct scrape, in);

        if (s->number == number) {
            finish(s, text);
            return;
        }
    }
}

void rs_far_metrics_node_gone(struct rs_far_metrics *m)
{
    while (!rs_list_empty(&m->scrapes))
        finish(rs_container_of(m->scrapes.next, struct scrape, in), NULL);
}
