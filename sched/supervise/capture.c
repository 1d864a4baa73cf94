#include "sched/supervise/capture.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "sched/supervise/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKLOG ((size_t)1 << 20) /* bytes that a stream of ours may be behind */
#define RETRY (20 * RS_MS)
#define READ_SIZE 65536
#define READS_PER_TURN 4 /* a replica that prints without end leaves time for the others */
#define TAIL 4096

struct rs_capture_hub {
    struct rs_loop *loop;
    struct rs_capture_conf conf;
    char *dir;
    bool colour[2];
    struct rs_buf behind[2]; /* whole lines that stdout and stderr did not take yet */
    bool stuck[2];           /* warned of */
    struct rs_timer retry;
    uint64_t dropped;
    unsigned opened;
    struct rs_journal *journal;
    void (*sink)(int stream, const char *line, size_t len, void *arg);
    void *sink_arg;
};

struct stream {
    struct rs_io io;
    struct rs_capture *capture;
    int number; /* 0: stdout, 1: stderr */
    struct rs_buf line;
};

struct rs_capture {
    struct rs_capture_hub *hub;
    char *label;
    struct rs_logfile *file; /* NULL: none */
    struct rs_journal_source *source;
    char *path;
    struct stream streams[2];
    struct rs_buf tail; /* last lines of stderr */
};

/* --- our own stdout and stderr --- */

/* Writes what can be written without waiting: a pipe that polls writable takes PIPE_BUF bytes. */
static void flush_stream(struct rs_capture_hub *h, int s)
{
    struct rs_buf *b = &h->behind[s];

    while (rs_buf_len(b) > 0) {
        struct pollfd p = {.fd = s + 1, .events = POLLOUT};
        size_t len = rs_buf_len(b) < 4096 ? rs_buf_len(b) : 4096;
        ssize_t n;

        if (poll(&p, 1, 0) <= 0)
            return;
        n = (p.revents & (POLLERR | POLLNVAL)) ? -1 : write(s + 1, rs_buf_head(b), len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN) && !(p.revents & (POLLERR | POLLNVAL)))
            return;
        if (n < 0) { /* nobody reads it any more, or the disk below it is full */
            h->dropped++;
            rs_buf_clear(b);
            return;
        }
        rs_buf_consume(b, (size_t)n);
    }
    h->stuck[s] = false;
}

static void flush_hub(struct rs_capture_hub *h)
{
    flush_stream(h, 0);
    flush_stream(h, 1);
    if (rs_buf_len(&h->behind[0]) + rs_buf_len(&h->behind[1]) > 0 && !h->retry.loop)
        rs_timer_start(&h->retry, h->loop, rs_clock_now() + RETRY);
}

static int on_retry(struct rs_timer *t)
{
    flush_hub(rs_container_of(t, struct rs_capture_hub, retry));
    return 0;
}

static void echo_text(const struct rs_capture *c, int s, const char *line, size_t len)
{
    static const char *const colours[] = {"36", "33", "35", "34", "32", "31"};
    struct rs_buf *out = &c->hub->behind[s];
    unsigned hue = 0;

    if (c->hub->colour[s]) {
        for (const char *p = c->label; *p; p++)
            hue = hue * 31 + (unsigned char)*p;
        rs_buf_printf(out, "\x1b[%sm(%s)\x1b[0m ", colours[hue % RS_COUNT(colours)], c->label);
    } else {
        rs_buf_printf(out, "(%s) ", c->label);
    }
    rs_buf_append(out, line, len);
    rs_buf_append(out, "\n", 1);
}

static void echo_json(const struct rs_capture *c, int s, const char *line, size_t len)
{
    struct rs_buf raw = {0};
    struct rs_buf clean = {0};

    rs_buf_append(&raw, line, len);
    rs_text_fit(&clean, rs_buf_text(&raw),
                RS_CAPTURE_LINE); /* valid UTF-8, no control characters */
    json_t *j = json_pack("{s:s, s:s, s:s}", "replica", c->label, "stream",
                          s == 0 ? "stdout" : "stderr", "message", rs_buf_text(&clean));
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

    if (text) {
        rs_buf_puts(&c->hub->behind[s], text);
        rs_buf_append(&c->hub->behind[s], "\n", 1);
    }
    free(text);
    json_decref(j);
    rs_buf_fini(&raw);
    rs_buf_fini(&clean);
}

static void echo(struct rs_capture *c, int s, const char *line, size_t len)
{
    struct rs_capture_hub *h = c->hub;

    if (!h->conf.echo)
        return;
    if (rs_buf_len(&h->behind[s]) > BACKLOG) {
        h->dropped++;
        if (!h->stuck[s] && s == 0) /* stderr cannot tell of itself */
            rs_log_warn("output dropped", "stream=stdout reason=\"its reader does not keep up\"");
        h->stuck[s] = true;
        return;
    }
    if (h->sink) {
        rs_auto(rs_freep) char *text = rs_asprintf("(%s) %.*s", c->label, (int)len, line);

        h->sink(s + 1, text, strlen(text), h->sink_arg);
    } else if (rs_log_format() == RS_LOG_JSON) {
        echo_json(c, s, line, len);
    } else {
        echo_text(c, s, line, len);
    }
}

/* --- lines --- */

static void keep_tail(struct rs_capture *c, const char *line, size_t len)
{
    rs_buf_append(&c->tail, line, len);
    rs_buf_append(&c->tail, "\n", 1);
    if (rs_buf_len(&c->tail) <= 2 * (size_t)TAIL)
        return;
    rs_buf_consume(&c->tail, rs_buf_len(&c->tail) - TAIL);
    const char *nl = memchr(rs_buf_head(&c->tail), '\n', rs_buf_len(&c->tail));

    if (nl && (size_t)(nl + 1 - rs_buf_head(&c->tail)) < rs_buf_len(&c->tail))
        rs_buf_consume(&c->tail, (size_t)(nl + 1 - rs_buf_head(&c->tail)));
}

static void one_line(struct stream *s, const char *line, size_t len)
{
    struct rs_capture *c = s->capture;

    if (len > 0 && line[len - 1] == '\r')
        len--;
    if (s->number == 1)
        keep_tail(c, line, len);
    if (c->file)
        c->hub->dropped += rs_logfile_line(c->file, line, len);
    rs_journal_add(c->source, s->number + 1, rs_clock_wall(), line, len);
    echo(c, s->number, line, len);
}

static void split(struct stream *s)
{
    for (;;) {
        size_t len = rs_buf_len(&s->line);
        const char *head = rs_buf_head(&s->line);
        const char *nl = len ? memchr(head, '\n', len) : NULL;

        if (nl && nl - head <= RS_CAPTURE_LINE) {
            one_line(s, head, (size_t)(nl - head));
            rs_buf_consume(&s->line, (size_t)(nl - head) + 1);
        } else if (len >= RS_CAPTURE_LINE) {
            one_line(s, head, RS_CAPTURE_LINE);
            rs_buf_consume(&s->line, RS_CAPTURE_LINE);
        } else {
            return;
        }
    }
}

static void close_stream(struct stream *s)
{
    if (s->io.fd < 0)
        return;
    rs_io_stop(&s->io);
    close(s->io.fd);
    s->io.fd = -1;
    if (rs_buf_len(&s->line) > 0)
        one_line(s, rs_buf_head(&s->line), rs_buf_len(&s->line));
    rs_buf_fini(&s->line);
}

static void read_stream(struct stream *s, int rounds)
{
    while (rounds-- > 0 && s->io.fd >= 0) {
        ssize_t n = read(s->io.fd, rs_buf_reserve(&s->line, READ_SIZE), READ_SIZE);

        if (n > 0) {
            rs_buf_commit(&s->line, (size_t)n);
            split(s);
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        } else {
            close_stream(s);
        }
    }
    if (s->capture->file)
        s->capture->hub->dropped += rs_logfile_flush(s->capture->file);
    flush_hub(s->capture->hub);
}

static int on_output(struct rs_io *io, uint32_t events)
{
    read_stream(rs_container_of(io, struct stream, io), READS_PER_TURN);
    return 0;
}

/* --- objects --- */

static bool wants_colour(int fd, int colour)
{
    const char *no = getenv("NO_COLOR");

    if (colour >= 0)
        return colour > 0;
    return isatty(fd) && !(no && no[0]);
}

int rs_capture_hub_new(struct rs_capture_hub **ret, struct rs_loop *loop,
                       const struct rs_capture_conf *conf, struct rs_error *err)
{
    struct rs_capture_hub *h;

    if (conf->dir && access(conf->dir, W_OK | X_OK) < 0)
        return rs_error_errno(err, errno, "cannot keep logs in '%s'", conf->dir);
    h = rs_alloc(sizeof(*h));
    h->loop = loop;
    h->conf = *conf;
    h->dir = rs_strdup(conf->dir);
    h->retry.fn = on_retry;
    for (int s = 0; s < 2; s++)
        h->colour[s] = wants_colour(s + 1, conf->colour);
    h->journal = rs_journal_new(0);
    if (h->dir)
        rs_logfile_prune(h->dir);
    *ret = h;
    return 0;
}

void rs_capture_hub_free(struct rs_capture_hub *h)
{
    if (!h)
        return;
    flush_stream(h, 0);
    flush_stream(h, 1);
    rs_timer_stop(&h->retry);
    rs_buf_fini(&h->behind[0]);
    rs_buf_fini(&h->behind[1]);
    rs_journal_free(h->journal);
    free(h->dir);
    free(h);
}

struct rs_journal *rs_capture_journal(struct rs_capture_hub *h)
{
    return h->journal;
}

uint64_t rs_capture_dropped(const struct rs_capture_hub *h)
{
    return h->dropped;
}

void rs_capture_hub_sink(struct rs_capture_hub *h,
                         void (*sink)(int stream, const char *line, size_t len, void *arg),
                         void *arg)
{
    h->sink = sink;
    h->sink_arg = arg;
}

char *rs_capture_path_of(const char *dir, const char *label)
{
    rs_auto(rs_freep) char *file = rs_strdup(label);

    for (char *p = file; *p; p++)
        if (*p == '#' || *p == '/' || (unsigned char)*p < ' ')
            *p = '_';
    return rs_asprintf("%s/%s.log", dir, file);
}

static int start_stream(struct rs_capture *c, int number, int *write_end, struct rs_error *err)
{
    struct stream *s = &c->streams[number];
    int p[2];

    if (pipe2(p, O_CLOEXEC) < 0)
        return rs_error_errno(err, errno, "pipe");
    *write_end = p[1];
    s->number = number;
    s->capture = c;
    s->io = (struct rs_io){.fd = p[0], .fn = on_output};
    if (fcntl(p[0], F_SETFL, O_NONBLOCK) < 0)
        return rs_error_errno(err, errno, "fcntl");
    return rs_io_start(&s->io, c->hub->loop, EPOLLIN, err);
}

int rs_capture_new(struct rs_capture **ret, struct rs_capture_hub *h, const char *label,
                   int *out_fd, int *err_fd, struct rs_error *err)
{
    rs_auto(rs_capture_freep) struct rs_capture *c = rs_alloc(sizeof(*c));
    rs_auto(rs_closep) int out = -1;
    rs_auto(rs_closep) int error = -1;

    c->hub = h;
    c->label = rs_strdup(label);
    c->source = rs_journal_open(h->journal, label);
    c->streams[0].io.fd = c->streams[1].io.fd = -1;
    if (start_stream(c, 0, &out, err) < 0 || start_stream(c, 1, &error, err) < 0)
        return -1;
    if (h->dir) {
        if (++h->opened % 64 == 0)
            rs_logfile_prune(h->dir);
        c->path = rs_capture_path_of(h->dir, label);
        c->file = rs_logfile_new(c->path, h->conf.max_file, h->conf.keep);
    }
    *out_fd = rs_steal_fd(&out);
    *err_fd = rs_steal_fd(&error);
    *ret = rs_steal(c);
    return 0;
}

void rs_capture_drain(struct rs_capture *c)
{
    read_stream(&c->streams[0], 64);
    read_stream(&c->streams[1], 64);
}

void rs_capture_free(struct rs_capture *c)
{
    if (!c)
        return;
    for (int s = 0; s < 2; s++) {
        if (c->streams[s].io.fd >= 0 && c->streams[s].capture)
            read_stream(&c->streams[s], 64);
        if (c->streams[s].capture)
            close_stream(&c->streams[s]);
    }
    if (c->file)
        c->hub->dropped += rs_logfile_flush(c->file);
    flush_hub(c->hub);
    rs_logfile_free(c->file);
    rs_journal_close(c->source);
    rs_buf_fini(&c->tail);
    free(c->label);
    free(c->path);
    free(c);
}

void rs_capture_ended(struct rs_capture *c, int wait_status)
{
    rs_auto(rs_freep) char *how = NULL;

    if (WIFSIGNALED(wait_status))
        how = rs_asprintf("killed by signal %d (%s)", WTERMSIG(wait_status),
                          strsignal(WTERMSIG(wait_status)));
    else
        how = rs_asprintf("exited with status %d", WEXITSTATUS(wait_status));
    rs_journal_add(c->source, 0, rs_clock_wall(), how, strlen(how));
}

const char *rs_capture_tail(const struct rs_capture *c)
{
    return rs_buf_text(&c->tail);
}

const char *rs_capture_path(const struct rs_capture *c)
{
    return c->path;
}
