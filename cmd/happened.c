#include "cmd/happened.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/events/kept.h"
#include "core/events/ring.h"

enum { LIMIT = 1000, LIMIT_MAX = 10000, RETRY_S = 30 };

struct rs_happened {
    struct rs_events ring;
    struct rs_records *records; /* NULL: nothing is kept */
    int64_t saved_at;
    bool failing; /* to write, and that was said */
};

void rs_happened_new(struct rs_happened **ret, struct rs_records *records)
{
    struct rs_happened *h = rs_alloc(sizeof(*h));
    struct rs_error err = {0};
    size_t left_out = 0;

    h->records = records;
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
    rs_events_fini(&h->ring);
    free(h);
}

/* What somebody did, or what is a step of a plan: two of them are two. */
static bool is_single(enum rs_controller_event_kind kind)
{
    return kind == RS_EVENT_DEPLOY || kind == RS_EVENT_ROLLOUT || kind == RS_EVENT_CANARY ||
           kind == RS_EVENT_HEAD;
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
        .single = is_single(e->kind),
    };

    rs_events_add(&h->ring, &event, rs_clock_wall());
}

int64_t rs_happened_turn(struct rs_happened *h, int64_t now)
{
    if (!h->records)
        return INT64_MAX;
    if (rs_events_due(&h->ring, h->saved_at) <= now)
        save(h, now);
    return rs_events_due(&h->ring, h->saved_at);
}

int rs_happened_ask(const struct rs_happened *h, const struct rs_api_call *call, json_t **ret,
                    struct rs_error *err)
{
    const char *after = rs_api_query(call, "after");
    struct rs_events_ask ask = {
        .has_after = after && *after,
        .app = rs_api_query(call, "app"),
        .deployment = rs_api_query(call, "deployment"),
        .replica = rs_api_query(call, "replica"),
        .kind = rs_api_query(call, "kind"),
    };
    int64_t n = 0, limit = 0;

    if (rs_api_query_int(call, "after", 0, INT64_MAX, 0, &n, err) < 0 ||
        rs_api_query_int(call, "limit", 1, LIMIT_MAX, LIMIT, &limit, err) < 0)
        return -1;
    ask.after = (uint64_t)n;
    ask.limit = (size_t)limit;
    *ret = rs_events_list(&h->ring, &ask);
    return 0;
}
