#include "cmd/node-logs.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/list.h"
#include "core/base/text.h"

#include <string.h>

enum { GATHER_MS = 20, WAIT_MAX_S = 60, BYTES_MIN = 4096, BYTES_MAX = 4 << 20 };

struct question {
    struct rs_list in;
    uint64_t stream;
    char *app, *deployment, *replica;
    struct rs_journal_query query;
    int64_t until;
};

struct rs_node_logs {
    struct rs_loop *loop;
    struct rs_journal *journal;
    char *node_name;
    void (*answer)(uint64_t stream, const json_t *msg, void *arg);
    void *arg;
    struct rs_list waiting; /* oldest first */
    unsigned n_waiting;
    struct rs_timer gather, expire;
};

static void question_free(struct question *q)
{
    rs_list_remove(&q->in);
    free(q->app);
    free(q->deployment);
    free(q->replica);
    free(q);
}

/* --- answers ------------------------------------------------------------------------------------- */

/* What is not UTF-8 becomes U+FFFD; colours and tabs stay. */
static json_t *as_text(const char *text, size_t len)
{
    const char *at = text, *end = text + len;
    struct rs_buf clean = {0};
    json_t *j = json_stringn(text, len);

    if (j && !memchr(text, '\0', len))
        return j;
    json_decref(j);
    while (at < end) {
        const char *from = at;

        if (*at == '\0' || rs_utf8_next(&at, end) < 0) {
            at = from + 1;
            rs_buf_puts(&clean, "\xef\xbf\xbd");
        } else {
            rs_buf_append(&clean, from, (size_t)(at - from));
        }
    }
    j = json_stringn(rs_buf_text(&clean), rs_buf_len(&clean));
    rs_buf_fini(&clean);
    return j;
}

static void put_line(const struct rs_journal_line *line, void *arg)
{
    json_array_append_new(arg, json_pack("[f, o, i, o]", line->wall,
                                         as_text(line->label, strlen(line->label)), line->stream,
                                         as_text(line->text, line->len)));
}

/* False: there is nothing to say, and `empty` was not asked for. */
static bool answer(struct rs_node_logs *l, const struct question *q, bool empty)
{
    rs_auto(rs_json_decrefp) json_t *lines = json_array(), *msg = NULL;
    struct rs_journal_page page;

    rs_journal_read(l->journal, &q->query, put_line, lines, &page);
    if (json_array_size(lines) == 0 && !page.lost && !empty)
        return false;
    msg = json_pack("{s:s, s:I, s:b, s:b, s:O}", "node", l->node_name, "next",
                    (json_int_t)page.next, "more", page.more, "lost", page.lost, "lines", lines);
    l->answer(q->stream, msg, l->arg);
    return true;
}

/* --- waiting ------------------------------------------------------------------------------------- */

static void on_news(void *arg)
{
    struct rs_node_logs *l = arg;

    rs_timer_start(&l->gather, l->loop, rs_clock_now() + GATHER_MS * RS_MS);
}

static void done(struct rs_node_logs *l, struct question *q)
{
    l->n_waiting--;
    question_free(q);
}

static int on_gathered(struct rs_timer *t)
{
    struct rs_node_logs *l = rs_container_of(t, struct rs_node_logs, gather);

    rs_list_for_each (it, &l->waiting) {
        struct question *q = rs_container_of(it, struct question, in);

        if (answer(l, q, false))
            done(l, q);
    }
    if (l->n_waiting > 0)
        rs_journal_watch(l->journal, on_news, l);
    return 0;
}

static void set_expire(struct rs_node_logs *l)
{
    int64_t at = INT64_MAX;

    rs_list_for_each (it, &l->waiting) {
        const struct question *q = rs_container_of(it, struct question, in);

        at = q->until < at ? q->until : at;
    }
    rs_timer_stop(&l->expire);
    if (at != INT64_MAX)
        rs_timer_start(&l->expire, l->loop, at);
}

static int on_expired(struct rs_timer *t)
{
    struct rs_node_logs *l = rs_container_of(t, struct rs_node_logs, expire);
    int64_t now = rs_clock_now();

    rs_list_for_each (it, &l->waiting) {
        struct question *q = rs_container_of(it, struct question, in);

        if (q->until <= now) {
            (void)answer(l, q, true);
            done(l, q);
        }
    }
    set_expire(l);
    return 0;
}

static void park(struct rs_node_logs *l, struct question *q)
{
    if (l->n_waiting >= RS_NODE_LOGS_WAITING) {
        struct question *oldest = rs_container_of(l->waiting.next, struct question, in);

        (void)answer(l, oldest, true);
        done(l, oldest);
    }
    rs_list_push_back(&l->waiting, &q->in);
    l->n_waiting++;
    set_expire(l);
    rs_journal_watch(l->journal, on_news, l);
}

/* --- questions ----------------------------------------------------------------------------------- */

static void cancel(struct rs_node_logs *l, uint64_t stream)
{
    rs_list_for_each (it, &l->waiting) {
        struct question *q = rs_container_of(it, struct question, in);

        if (q->stream == stream)
            done(l, q);
    }
    set_expire(l);
}

static int64_t within(int64_t n, int64_t min, int64_t max)
{
    return n < min ? min : n > max ? max : n;
}

static struct question *question_of(uint64_t stream, const json_t *msg)
{
    struct question *q = rs_alloc(sizeof(*q));
    double age = rs_json_num(msg, "since_s", -1);
    int64_t last = rs_json_int(msg, "last", -1);

    rs_list_init(&q->in);
    q->stream = stream;
    q->app = rs_strdup(rs_json_str(msg, "app", NULL));
    q->deployment = rs_strdup(rs_json_str(msg, "deployment", NULL));
    q->replica = rs_strdup(rs_json_str(msg, "replica", NULL));
    q->query = (struct rs_journal_query){
        .app = q->app,
        .deployment = q->deployment,
        .replica = q->replica,
        .previous = rs_json_bool(msg, "previous", false),
        .since = age >= 0 ? rs_clock_wall() - age : 0,
        .after = (uint64_t)within(rs_json_int(msg, "after", 0), 0, INT64_MAX),
        .last = last >= 0 ? (size_t)last : SIZE_MAX,
        .max_bytes = (size_t)within(rs_json_int(msg, "max_bytes", 0), BYTES_MIN, BYTES_MAX),
    };
    return q;
}

void rs_node_logs_asked(struct rs_node_logs *l, uint64_t stream, const json_t *msg)
{
    int64_t wait = within(rs_json_int(msg, "wait_s", 0), 0, WAIT_MAX_S);
    struct question *q;

    if (rs_json_bool(msg, "cancel", false)) {
        cancel(l, stream);
        return;
    }
    q = question_of(stream, msg);
    q->until = rs_clock_now() + wait * RS_SEC;
    if (answer(l, q, wait == 0 || !q->query.after))
        question_free(q);
    else
        park(l, q);
}

void rs_node_logs_head_gone(struct rs_node_logs *l)
{
    while (!rs_list_empty(&l->waiting))
        done(l, rs_container_of(l->waiting.next, struct question, in));
    rs_timer_stop(&l->gather);
    rs_timer_stop(&l->expire);
    rs_journal_watch(l->journal, NULL, NULL);
}

struct rs_node_logs *
rs_node_logs_new(struct rs_loop *loop, struct rs_journal *journal, const char *node_name,
                 void (*answer_fn)(uint64_t stream, const json_t *msg, void *arg), void *arg)
{
    struct rs_node_logs *l = rs_alloc(sizeof(*l));

    l->loop = loop;
    l->journal = journal;
    l->node_name = rs_strdup(node_name);
    l->answer = answer_fn;
    l->arg = arg;
    l->gather.fn = on_gathered;
    l->expire.fn = on_expired;
    rs_list_init(&l->waiting);
    return l;
}

void rs_node_logs_free(struct rs_node_logs *l)
{
    if (!l)
        return;
    rs_node_logs_head_gone(l);
    free(l->node_name);
    free(l);
}
