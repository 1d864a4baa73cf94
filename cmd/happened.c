#include "cmd/happened.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/events/kept.h"
#include "core/events/ring.h"

#include <stdlib.h>
#include <string.h>

enum { LIMIT = 1000, LIMIT_MAX = 10000, RETRY_S = 30, WAIT_MAX_S = 60, WAITERS_MAX = 64 };

/* Somebody who waits for the next one. */
struct waiter {
    struct rs_list in;
    struct rs_web_later *later;
    struct rs_events_ask ask;
    char *text[4]; /* of `ask` */
    int64_t until;
};

struct rs_happened {
    struct rs_events ring;
    struct rs_records *records; /* NULL: nothing is kept */
    int64_t saved_at;
    bool failing; /* to write, and that was said */
    struct rs_list waiters;
    unsigned n_waiters;
};

static void waiter_free(struct rs_happened *h, struct waiter *w)
{
    for (size_t i = 0; i < RS_COUNT(w->text); i++)
        free(w->text[i]);
    rs_list_remove(&w->in);
    h->n_waiters--;
    free(w);
}

void rs_happened_new(struct rs_happened **ret, struct rs_records *records)
{
    struct rs_happened *h = rs_alloc(sizeof(*h));
    struct rs_error err = {0};
    size_t left_out = 0;

    h->records = records;
    rs_list_init(&h->waiters);
    rs_events_init(&h->ring, NULL);
    if (records && rs_events_load(&h->ring, records, &left_out, &err) < 0)
        rs_log_error("what happened before is not known", "error=\"%s\"", err.msg);
    if (left_out)
        rs_log_warn("some of what happened before cannot be read", "events=%zu", left_out);
    *ret = h;
}

static void save(struct rs_happened *h, int64_t now)
{
    struct rs_error err = {0};

    h->saved_at = now;
    if (rs_events_save(&h->ring, h->records, &err) == 0) {
        h->failing = false;
        return;
    }
    h->saved_at = now + RETRY_S * RS_SEC;
    if (!h->failing)
        rs_log_error("what happens cannot be written down; it is tried again",
                     "error=\"%s\" seconds=%d", err.msg, RETRY_S);
    h->failing = true;
}

void rs_happened_free(struct rs_happened *h)
{
    if (!h)
        return;
    if (h->records && (h->ring.fresh || h->ring.again))
        save(h, 0);
    while (!rs_list_empty(&h->waiters))
        waiter_free(h, rs_container_of(h->waiters.next, struct waiter, in));
    rs_events_fini(&h->ring);
    free(h);
}

/* What somebody did, or where a change got to: two of them are two. Of a rollout's steps there are as many
 * as there are replicas. */
static bool is_single(const struct rs_controller_event *e)
{
    return e->kind == RS_EVENT_DEPLOY || e->kind == RS_EVENT_CANARY || e->kind == RS_EVENT_HEAD ||
           (e->kind == RS_EVENT_ROLLOUT && strcmp(e->status, "STEP") != 0);
}

void rs_happened_add(struct rs_happened *h, const struct rs_controller_event *e)
{
    const struct rs_event event = {
        .kind = rs_controller_event_kind_name(e->kind),
        .app = e->app,
        .deployment = e->deployment,
        .replica = e->replica_id,
        .node = e->node,
        .status = e->status,
        .before = e->before,
        .after = e->after,
        .cause = e->cause,
        .who = e->who,
        .text = e->text,
        .data = e->data,
        .single = is_single(e),
    };

    rs_events_add(&h->ring, &event, rs_clock_wall());
}

/* When the next one has waited for long enough. */
static int64_t answer_waiters(struct rs_happened *h, int64_t now)
{
    int64_t next = INT64_MAX;

    rs_list_for_each (it, &h->waiters) {
        struct waiter *w = rs_container_of(it, struct waiter, in);

        if (w->until <= now || rs_events_any(&h->ring, &w->ask)) {
            rs_auto(rs_json_decrefp) json_t *answer = rs_events_list(&h->ring, &w->ask);

            rs_api_later_answer(w->later, answer);
            waiter_free(h, w);
        } else if (w->until < next) {
            next = w->until;
        }
    }
    return next;
}

int64_t rs_happened_turn(struct rs_happened *h, int64_t now)
{
    int64_t next = answer_waiters(h, now), due;

    if (!h->records)
        return next;
    if (rs_events_due(&h->ring, h->saved_at) <= now)
        save(h, now);
    due = rs_events_due(&h->ring, h->saved_at);
    return due < next ? due : next;
}

static int read_ask(const struct rs_api_call *call, struct rs_events_ask *ask, int64_t *wait_s,
                    struct rs_error *err)
{
    const char *after = rs_api_query(call, "after");
    int64_t n = 0, limit = 0;

    *ask = (struct rs_events_ask){
        .has_after = after && *after,
        .app = rs_api_query(call, "app"),
        .deployment = rs_api_query(call, "deployment"),
        .replica = rs_api_query(call, "replica"),
        .kind = rs_api_query(call, "kind"),
    };
    if (rs_api_query_int(call, "after", 0, INT64_MAX, 0, &n, err) < 0 ||
        rs_api_query_int(call, "limit", 1, LIMIT_MAX, LIMIT, &limit, err) < 0 ||
        rs_api_query_int(call, "wait", 0, WAIT_MAX_S, 0, wait_s, err) < 0)
        return -1;
    ask->after = (uint64_t)n;
    ask->limit = (size_t)limit;
    return 0;
}

/* Its texts are the caller's until then: kept. */
static void park(struct rs_happened *h, const struct rs_api_call *call,
                 const struct rs_events_ask *ask, int64_t wait_s)
{
    struct waiter *w = rs_alloc(sizeof(*w));

    w->ask = *ask;
    w->ask.app = w->text[0] = rs_strdup(ask->app);
    w->ask.deployment = w->text[1] = rs_strdup(ask->deployment);
    w->ask.replica = w->text[2] = rs_strdup(ask->replica);
    w->ask.kind = w->text[3] = rs_strdup(ask->kind);
    w->until = rs_clock_now() + wait_s * RS_SEC;
    w->later = rs_api_later(call);
    rs_list_init(&w->in);
    rs_list_push_back(&h->waiters, &w->in);
    h->n_waiters++;
}

int rs_happened_ask(struct rs_happened *h, const struct rs_api_call *call, json_t **ret,
                    struct rs_error *err)
{
    struct rs_events_ask ask;
    int64_t wait_s = 0;

    if (read_ask(call, &ask, &wait_s, err) < 0)
        return -1;
    if (wait_s > 0 && ask.has_after && h->n_waiters < WAITERS_MAX &&
        !rs_events_any(&h->ring, &ask)) {
        park(h, call, &ask, wait_s);
        return RS_API_LATER;
    }
    *ret = rs_events_list(&h->ring, &ask);
    return 0;
}
