#include "sched/supervise/journal.h"

#include "core/base/alloc.h"
#include "core/base/list.h"

#include <string.h>

struct line {
    struct rs_list in;  /* the journal's */
    struct rs_list own; /* its source's */
    struct rs_journal_source *source;
    uint64_t seq;
    double wall;
    int stream;
    size_t len;
    char text[];
};

struct rs_journal_source {
    struct rs_list in; /* the journal's */
    struct rs_journal *journal;
    struct rs_list lines; /* oldest first */
    size_t bytes;
    uint64_t dropped; /* the last line that had to go */
    bool ended;
    char *label;
};

struct rs_journal {
    struct rs_list lines, sources;
    size_t max, bytes, n_sources;
    uint64_t seq;
    void (*news)(void *arg); /* NULL: nobody waits */
    void *arg;
};

struct rs_journal *rs_journal_new(size_t max_bytes)
{
    struct rs_journal *j = rs_alloc(sizeof(*j));

    j->seq = 1;
    j->max = max_bytes ? max_bytes : RS_JOURNAL_BYTES;
    rs_list_init(&j->lines);
    rs_list_init(&j->sources);
    return j;
}

static size_t cost(const struct line *l)
{
    return sizeof(*l) + l->len;
}

static void source_free(struct rs_journal_source *s)
{
    s->journal->n_sources--;
    rs_list_remove(&s->in);
    free(s->label);
    free(s);
}

/* Of a process that is gone nothing stays when its last line goes. */
static void drop(struct line *l)
{
    struct rs_journal_source *s = l->source;

    s->journal->bytes -= cost(l);
    s->bytes -= cost(l);
    s->dropped = l->seq;
    rs_list_remove(&l->in);
    rs_list_remove(&l->own);
    free(l);
    if (s->ended && rs_list_empty(&s->lines))
        source_free(s);
}

void rs_journal_free(struct rs_journal *j)
{
    if (!j)
        return;
    while (!rs_list_empty(&j->lines))
        drop(rs_container_of(j->lines.next, struct line, in));
    while (!rs_list_empty(&j->sources))
        source_free(rs_container_of(j->sources.next, struct rs_journal_source, in));
    free(j);
}

struct rs_journal_source *rs_journal_open(struct rs_journal *j, const char *label)
{
    struct rs_journal_source *s = rs_alloc(sizeof(*s));

    s->journal = j;
    s->label = rs_strdup(label);
    rs_list_init(&s->lines);
    rs_list_init(&s->in);
    rs_list_push_back(&j->sources, &s->in);
    j->n_sources++;
    return s;
}

void rs_journal_close(struct rs_journal_source *s)
{
    if (!s)
        return;
    s->ended = true;
    if (rs_list_empty(&s->lines))
        source_free(s);
}

static void make_room(struct rs_journal_source *s, size_t need)
{
    struct rs_journal *j = s->journal;

    while (j->bytes + need > j->max && !rs_list_empty(&j->lines)) {
        bool greedy = !rs_list_empty(&s->lines) && s->bytes > j->max / j->n_sources;

        drop(greedy ? rs_container_of(s->lines.next, struct line, own)
                    : rs_container_of(j->lines.next, struct line, in));
    }
}

void rs_journal_add(struct rs_journal_source *s, int stream, double wall, const char *line,
                    size_t len)
{
    struct rs_journal *j = s->journal;
    struct line *l = rs_alloc(sizeof(*l) + len);
    void (*news)(void *arg) = j->news;

    rs_list_init(&l->in);
    rs_list_init(&l->own);
    l->source = s;
    l->seq = ++j->seq;
    l->wall = wall;
    l->stream = stream;
    l->len = len;
    memcpy(l->text, line, len);
    make_room(s, cost(l));
    rs_list_push_back(&j->lines, &l->in);
    rs_list_push_back(&s->lines, &l->own);
    j->bytes += cost(l);
    s->bytes += cost(l);
    j->news = NULL;
    if (news)
        news(j->arg);
}

void rs_journal_watch(struct rs_journal *j, void (*news)(void *arg), void *arg)
{
    j->news = news;
    j->arg = arg;
}

/* --- reading ------------------------------------------------------------------------------------- */

/* Does part `n` of "a#b#c" equal `wanted`? The last part goes to the end. */
static bool part_is(const char *label, unsigned n, const char *wanted)
{
    size_t len;

    if (!wanted)
        return true;
    for (; n > 0; n--) {
        label += strcspn(label, "#");
        if (!*label++)
            return false;
    }
    len = strcspn(label, "#");
    return strlen(wanted) == len && memcmp(label, wanted, len) == 0;
}

static bool is_wanted(const struct rs_journal_source *s, const struct rs_journal_query *q)
{
    return (!q->previous || s->ended) && part_is(s->label, 0, q->app) &&
           part_is(s->label, 1, q->deployment) && part_is(s->label, 2, q->replica);
}

static bool passes(const struct line *l, const struct rs_journal_query *q)
{
    return l->wall >= q->since && is_wanted(l->source, q);
}

static struct line *at(struct rs_list *it)
{
    return rs_container_of(it, struct line, in);
}

/* Where the newest `last` lines begin. */
static struct rs_list *newest(const struct rs_journal *j, const struct rs_journal_query *q)
{
    struct rs_list *it = j->lines.prev, *from = (struct rs_list *)(uintptr_t)&j->lines;
    size_t n = 0, bytes = 0;

    for (; it != &j->lines && n < q->last; it = it->prev) {
        if (!passes(at(it), q))
            continue;
        bytes += cost(at(it));
        if (n > 0 && bytes > q->max_bytes)
            break;
        n++;
        from = it;
    }
    return from;
}

/* The first line after `seq`: most who ask have seen nearly all. */
static struct rs_list *behind(const struct rs_journal *j, uint64_t seq)
{
    struct rs_list *it = j->lines.prev;

    while (it != &j->lines && at(it)->seq > seq)
        it = it->prev;
    return it->next;
}

static bool lost_some(const struct rs_journal *j, const struct rs_journal_query *q)
{
    rs_list_for_each (it, &((struct rs_journal *)(uintptr_t)j)->sources) {
        const struct rs_journal_source *s = rs_container_of(it, struct rs_journal_source, in);

        if (s->dropped > q->after && is_wanted(s, q))
            return true;
    }
    return false;
}

void rs_journal_read(const struct rs_journal *j, const struct rs_journal_query *q,
                     void (*fn)(const struct rs_journal_line *line, void *arg), void *arg,
                     struct rs_journal_page *page)
{
    struct rs_list *it = q->after ? behind(j, q->after) : newest(j, q);
    size_t bytes = 0;

    *page = (struct rs_journal_page){.next = j->seq, .lost = q->after && lost_some(j, q)};
    for (; it != &j->lines; it = it->next) {
        struct line *l = at(it);

        if (!passes(l, q))
            continue;
        bytes += cost(l);
        if (q->after && bytes > cost(l) && bytes > q->max_bytes) {
            page->next = l->seq - 1;
            page->more = true;
            return;
        }
        fn(&(struct rs_journal_line){l->seq, l->wall, l->stream, l->source->label, l->text, l->len},
           arg);
    }
}
