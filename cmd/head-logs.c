#include "cmd/head-logs.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/list.h"

#include <stdio.h>
#include <string.h>

enum {
    QUESTIONS = 32,
    LINES_MAX = 100000,
    LINES_DEFAULT = 100,
    WAIT_MAX_S = 30,
    PATIENCE_MS = 5000, /* for a node, beyond what it waits for itself */
    BYTES = 1 << 20,
    BYTES_MIN = 8192, /* of a node */
    ID_SHOWN = 12     /* of a node, in a cursor */
};

struct question {
    struct rs_list in;
    uint64_t stream;
    struct rs_web_later *later;
    char *app;   /* NULL: all */
    size_t last; /* of the newest lines; 0: those after a cursor */
    bool follows;
    json_t *owed;   /* {node id: true} who has not answered */
    json_t *cursor; /* {short node id: next} */
    json_t *lines;  /* [{LogLine}], unordered */
    json_t *silent; /* [node id] */
    bool more, lost;
    int64_t until;
};

struct rs_head_logs {
    struct rs_loop *loop;
    struct rs_head_logs_ops ops;
    void *arg;
    struct rs_list questions;
    unsigned n;
    uint64_t streams;
    struct rs_timer expire;
};

static void question_free(struct question *q)
{
    rs_list_remove(&q->in);
    json_decref(q->owed);
    json_decref(q->cursor);
    json_decref(q->lines);
    json_decref(q->silent);
    free(q->app);
    free(q);
}

/* --- cursors: "ab12cd34ef56:17,..." -------------------------------------------------------------- */

static char *short_id(const char *node_id)
{
    return rs_strndup(node_id, strnlen(node_id, ID_SHOWN));
}

static json_t *cursor_parse(const char *text)
{
    json_t *cursor = json_object();

    while (text && *text) {
        size_t n = strcspn(text, ":,");
        char *end = NULL;

        if (text[n] != ':')
            break;
        json_object_setn_new(cursor, text, n,
                             json_integer((json_int_t)strtoll(text + n + 1, &end, 10)));
        text = end + strspn(end, ",");
        if (end[0] != ',')
            break;
    }
    return cursor;
}

static json_t *cursor_text(json_t *cursor)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    const char *node;
    json_t *next;

    json_object_foreach (cursor, node, next)
        rs_buf_printf(&out, "%s%s:%lld", rs_buf_len(&out) ? "," : "", node,
                      (long long)json_integer_value(next));
    return json_string(rs_buf_text(&out));
}

/* --- the answer ---------------------------------------------------------------------------------- */

struct ordered {
    double at;
    size_t index;
};

static int by_time(const void *a, const void *b)
{
    const struct ordered *x = a, *y = b;

    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* In the order of their times; of too many the last. A new reference. */
static json_t *in_order(const struct question *q)
{
    size_t n = json_array_size(q->lines), skip = q->last && n > q->last ? n - q->last : 0;
    struct ordered *all = rs_alloc((n + 1) * sizeof(*all));
    json_t *out = json_array();

    for (size_t i = 0; i < n; i++)
        all[i] = (struct ordered){rs_json_num(json_array_get(q->lines, i), "time_s", 0), i};
    qsort(all, n, sizeof(*all), by_time);
    for (size_t i = skip; i < n; i++)
        json_array_append(out, json_array_get(q->lines, all[i].index));
    free(all);
    return out;
}

static void answer(struct rs_head_logs *l, struct question *q)
{
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    struct rs_error err = {0};

    if (q->app && !q->follows && json_array_size(q->lines) == 0 && !l->ops.knows(q->app, l->arg)) {
        rs_error_set(&err, RS_NOT_FOUND,
                     "there is no application '%.100s', and nothing that it printed is known",
                     q->app);
        rs_api_later_fail(q->later, &err);
    } else {
        value = json_pack("{s:o, s:o, s:b, s:b, s:O}", "lines", in_order(q), "cursor",
                          cursor_text(q->cursor), "more", q->more, "lost", q->lost, "silent",
                          q->silent);
        rs_api_later_answer(q->later, value);
    }
    l->n--;
    question_free(q);
}

static void set_expire(struct rs_head_logs *l)
{
    int64_t at = INT64_MAX;

    rs_list_for_each (it, &l->questions) {
        const struct question *q = rs_container_of(it, struct question, in);

        at = q->until < at ? q->until : at;
    }
    rs_timer_stop(&l->expire);
    if (at != INT64_MAX)
        rs_timer_start(&l->expire, l->loop, at);
}

/* Who still waits for lines needs not any more. */
static void cancel(struct rs_head_logs *l, const struct question *q)
{
    rs_auto(rs_json_decrefp) json_t *msg = json_pack("{s:b}", "cancel", 1);
    const char *node;
    json_t *owed;

    json_object_foreach (q->owed, node, owed)
        l->ops.ask(node, q->stream, msg, l->arg);
}

static void maybe_done(struct rs_head_logs *l, struct question *q)
{
    bool enough = q->follows && (json_array_size(q->lines) > 0 || q->lost);

    if (json_object_size(q->owed) > 0 && !enough)
        return;
    cancel(l, q);
    answer(l, q);
    set_expire(l);
}

static int on_expired(struct rs_timer *t)
{
    struct rs_head_logs *l = rs_container_of(t, struct rs_head_logs, expire);
    int64_t now = rs_clock_now();

    rs_list_for_each (it, &l->questions) {
        struct question *q = rs_container_of(it, struct question, in);
        const char *node;
        json_t *owed;

        if (q->until > now)
            continue;
        json_object_foreach (q->owed, node, owed)
            json_array_append_new(q->silent, json_string(node));
        cancel(l, q);
        answer(l, q);
    }
    set_expire(l);
    return 0;
}

/* --- what nodes say ------------------------------------------------------------------------------ */

/* Part `n` of "app#deployment#replica"; null: it has fewer. */
static json_t *part(const char *label, unsigned n)
{
    for (; n > 0; n--) {
        label += strcspn(label, "#");
        if (!*label++)
            return json_null();
    }
    return json_stringn(label, strcspn(label, "#"));
}

static void take_line(struct question *q, const char *node, const json_t *line)
{
    static const char *const streams[] = {"rserve", "stdout", "stderr"};
    const char *label = json_string_value(json_array_get(line, 1));
    json_int_t stream = json_integer_value(json_array_get(line, 2));
    json_t *text = json_array_get(line, 3);

    if (!label || !json_is_string(text) || stream < 0 || stream > 2)
        return;
    json_array_append_new(q->lines, json_pack("{s:f, s:o, s:o, s:o, s:s, s:s, s:O}", "time_s",
                                              json_number_value(json_array_get(line, 0)), "app",
                                              part(label, 0), "deployment", part(label, 1),
                                              "replica", part(label, 2), "node", node, "stream",
                                              streams[stream], "text", text));
}

static struct question *question_of(struct rs_head_logs *l, uint64_t stream)
{
    rs_list_for_each (it, &l->questions) {
        struct question *q = rs_container_of(it, struct question, in);

        if (q->stream == stream)
            return q;
    }
    return NULL;
}

void rs_head_logs_answered(struct rs_head_logs *l, const char *node_id, uint64_t stream,
                           const json_t *msg)
{
    struct question *q = question_of(l, stream);
    rs_auto(rs_freep) char *id = short_id(node_id);
    json_t *line;
    size_t i;

    if (!q || json_object_del(q->owed, node_id) < 0)
        return; /* nobody waits for it any more */
    json_array_foreach (json_object_get(msg, "lines"), i, line)
        take_line(q, rs_json_str(msg, "node", ""), line);
    json_object_set_new(q->cursor, id, json_integer(rs_json_int(msg, "next", 0)));
    q->more |= rs_json_bool(msg, "more", false);
    q->lost |= rs_json_bool(msg, "lost", false);
    maybe_done(l, q);
}

void rs_head_logs_node_gone(struct rs_head_logs *l, const char *node_id)
{
    rs_list_for_each (it, &l->questions) {
        struct question *q = rs_container_of(it, struct question, in);

        if (json_object_del(q->owed, node_id) == 0)
            maybe_done(l, q);
    }
}

/* --- questions ----------------------------------------------------------------------------------- */

struct asking {
    struct rs_head_logs *logs;
    struct question *q;
    const json_t *msg;
};

static void note_node(const char *node_id, void *to)
{
    const struct asking *a = to;

    json_object_set_new(a->q->owed, node_id, json_true());
}

static void ask_all(struct rs_head_logs *l, struct question *q, json_t *msg)
{
    struct asking a = {l, q, msg};
    rs_auto(rs_json_decrefp) json_t *nodes = NULL;
    const char *node;
    json_t *v;
    size_t n, share;

    l->ops.each_node(note_node, &a, l->arg);
    n = json_object_size(q->owed);
    share = n > 0 && BYTES / n > BYTES_MIN ? BYTES / n : BYTES_MIN;
    json_object_set_new(msg, "max_bytes", json_integer((json_int_t)share));
    nodes = json_copy(q->owed); /* one that is in this process may answer at once */
    json_object_foreach (nodes, node, v) {
        rs_auto(rs_freep) char *id = short_id(node);
        rs_auto(rs_json_decrefp) json_t *own = json_copy(msg);

        /* a node that came later is asked for all that it has */
        json_object_set_new(own, "after",
                            json_integer(q->follows ? rs_json_int(q->cursor, id, 1) : 0));
        l->ops.ask(node, q->stream, own, l->arg);
    }
}

/* {"app", "deployment", "replica"} of "a#b#c". */
static int target_of(const char *text, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *app = NULL, *deployment = NULL, *replica = NULL;

    if (!text || !*text) {
        *ret = json_object();
        return 0;
    }
    if (*text == '#')
        return rs_error_set(err, RS_INVALID,
                            "?target=: expected APP, APP#DEPLOYMENT or APP#DEPLOYMENT#REPLICA, got "
                            "'%.100s'",
                            text);
    app = part(text, 0);
    deployment = part(text, 1);
    replica = part(text, 2);
    *ret = json_pack("{s:O}", "app", app);
    if (json_string_length(deployment) > 0)
        json_object_set(*ret, "deployment", deployment);
    if (json_string_length(replica) > 0)
        json_object_set(*ret, "replica", replica);
    return 0;
}

static int age_of(const struct rs_api_call *call, json_t *msg, struct rs_error *err)
{
    const char *text = rs_api_query(call, "since_s");
    char *end = NULL;
    double age;

    if (!text || !*text)
        return 0;
    age = strtod(text, &end);
    if (*end || !(age >= 0 && age < 1e10))
        return rs_error_set(err, RS_INVALID, "?since_s=: expected a number of seconds, got '%.40s'",
                            text);
    json_object_set_new(msg, "since_s", json_real(age));
    return 0;
}

int rs_head_logs_asked(struct rs_head_logs *l, const struct rs_api_call *call, struct rs_error *err)
{
    const char *cursor = rs_api_query(call, "cursor");
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    int64_t last, wait, previous;
    struct question *q;

    if (target_of(rs_api_query(call, "target"), &msg, err) < 0 || age_of(call, msg, err) < 0 ||
        rs_api_query_int(call, "lines", 0, LINES_MAX, LINES_DEFAULT, &last, err) < 0 ||
        rs_api_query_int(call, "wait_s", 0, WAIT_MAX_S, 0, &wait, err) < 0 ||
        rs_api_query_int(call, "previous", 0, 1, 0, &previous, err) < 0)
        return -1;
    if (l->n >= QUESTIONS)
        return rs_error_set(err, RS_NO_ROOM,
                            "%d clients ask for logs already; try again when some have ended",
                            QUESTIONS);
    q = rs_alloc(sizeof(*q));
    rs_list_init(&q->in);
    rs_list_push_back(&l->questions, &q->in);
    l->n++;
    q->stream = l->streams += 2;
    q->later = rs_api_later(call);
    q->app = rs_strdup(rs_json_str(msg, "app", NULL));
    q->follows = cursor && *cursor;
    q->last = q->follows ? 0 : (size_t)last;
    q->owed = json_object();
    q->cursor = cursor_parse(cursor);
    q->lines = json_array();
    q->silent = json_array();
    q->until = rs_clock_now() + wait * RS_SEC + PATIENCE_MS * RS_MS;
    json_object_set_new(msg, "previous", json_boolean(previous));
    json_object_set_new(msg, "wait_s", json_integer(q->follows ? wait : 0));
    json_object_set_new(msg, "last", json_integer(last));
    ask_all(l, q, msg);
    set_expire(l);
    if (json_object_size(q->owed) == 0)
        maybe_done(l, q);
    return RS_API_LATER;
}

struct rs_head_logs *rs_head_logs_new(struct rs_loop *loop, const struct rs_head_logs_ops *ops,
                                      void *arg)
{
    struct rs_head_logs *l = rs_alloc(sizeof(*l));

    l->loop = loop;
    l->ops = *ops;
    l->arg = arg;
    l->expire.fn = on_expired;
    rs_list_init(&l->questions);
    return l;
}

void rs_head_logs_free(struct rs_head_logs *l)
{
    if (!l)
        return;
    rs_timer_stop(&l->expire);
    while (!rs_list_empty(&l->questions))
        question_free(rs_container_of(l->questions.next, struct question, in));
    free(l);
}
