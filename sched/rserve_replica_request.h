/* Third part of rserve_replica.h: input and requests. */
#if defined(RSERVE_REPLICA_IMPLEMENTATION) && !defined(RSERVE_REPLICA_REQUEST_H)
#define RSERVE_REPLICA_REQUEST_H

#ifdef __cplusplus
extern "C" {
#endif

/* --- Python's pickles of one bytes or str -------------------------------------------------------- */

/* Length bytes of an opcode that pushes bytes or str, 0 for other opcodes. */
static size_t rserve_i_opcode(unsigned char op)
{
    switch (op) {
    case 'C':  /* SHORT_BINBYTES */
    case 0x8c: /* SHORT_BINUNICODE */
        return 1;
    case 'B': /* BINBYTES */
    case 'X': /* BINUNICODE */
        return 4;
    case 0x8e: /* BINBYTES8 */
    case 0x8d: /* BINUNICODE8 */
    case 0x96: /* BYTEARRAY8 */
        return 8;
    default:
        return 0;
    }
}

/* Finds the one value in `p`, which ends with the opcodes `tail` after it. 0, or -1: something else. */
static int rserve_i_unpickle(const char *p, size_t len, const char *tail, const char **ret,
                             size_t *ret_len)
{
    const char *end = p + len, *data = NULL;
    size_t data_len = 0;

    while (p < end) {
        unsigned char op = (unsigned char)*p++;
        size_t width = rserve_i_opcode(op);

        if (op == 0x94) /* MEMOIZE */
            continue;
        if (op == 0x80 || op == 0x95) { /* PROTO, FRAME */
            size_t skip = op == 0x80 ? 1 : 8;

            if ((size_t)(end - p) < skip)
                return -1;
            p += skip;
        } else if (width && !data && (size_t)(end - p) >= width) {
            uint64_t n = rserve_i_get(p, width);

            p += width;
            if (n > (size_t)(end - p))
                return -1;
            data = p;
            data_len = (size_t)n;
            p += n;
        } else if (data && *tail && op == (unsigned char)*tail) {
            if (!*++tail) {
                *ret = data;
                *ret_len = data_len;
                return p == end ? 0 : -1;
            }
        } else {
            return -1;
        }
    }
    return -1;
}

/* What stands behind the one argument in a pickled (args, kwargs): TUPLE1 EMPTY_DICT TUPLE2 STOP. */
#define RSERVE_I_ARGS "\x85}\x86."

/* The pickled arguments of a call become its body. -1: they are not one bytes or str, or none. */
static int rserve_i_arguments(struct rserve_request *req)
{
    const char *p = req->body, *end = p + req->body_len, *tail = ")}\x86.";

    if (rserve_i_unpickle(p, req->body_len, RSERVE_I_ARGS, &req->body, &req->body_len) == 0)
        return 0;
    while (p < end && *tail) { /* ((), {}) */
        unsigned char op = (unsigned char)*p;
        size_t skip = op == 0x80 ? 2 : op == 0x95 ? 9 : 1;

        if (op != 0x80 && op != 0x95 && op != 0x94 && op != (unsigned char)*tail++)
            return -1;
        if ((size_t)(end - p) < skip)
            return -1;
        p += skip;
    }
    if (p != end || *tail)
        return -1;
    req->body_len = 0;
    return 0;
}

/* --- input --------------------------------------------------------------------------------------- */

/* A handler looks into the current input buffer: read on in another one. */
static void rserve_i_swap(struct rserve_i *c)
{
    struct rserve_i_buf *old = c->in;

    if (!c->held || c->held != c->in)
        return;
    c->in = c->spare;
    c->spare = NULL;
    if (!c->in) {
        c->in = (struct rserve_i_buf *)rserve_i_alloc(NULL, sizeof(*c->in));
        memset(c->in, 0, sizeof(*c->in));
    }
    rserve_i_append(c->in, old->data + old->start, old->end - old->start);
}

/* Reads once. 1: something came, 0: nothing there (MSG_DONTWAIT), -1: the connection ended. */
static int rserve_i_receive(struct rserve_i *c, int flags)
{
    union {
        char space[CMSG_SPACE(sizeof(int) * 4)];
        struct cmsghdr align;
    } control;
    size_t room = c->need > RSERVE_I_CHUNK ? c->need : RSERVE_I_CHUNK;
    struct iovec iov;
    struct msghdr msg;
    struct cmsghdr *m;
    ssize_t n;

    memset(&msg, 0, sizeof(msg));
    iov.iov_base = rserve_i_reserve(c->in, room);
    iov.iov_len = room;
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    do {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC | flags);
        if (n < 0 && errno == EAGAIN && !flags) { /* someone made it non-blocking */
            struct pollfd p;

            p.fd = c->fd;
            p.events = POLLIN;
            poll(&p, 1, -1);
            errno = EINTR;
        }
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    c->in->end += (size_t)n;
    for (m = CMSG_FIRSTHDR(&msg); m; m = CMSG_NXTHDR(&msg, m)) {
        size_t i, fds = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (i = 0; m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_RIGHTS && i < fds; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(m) + i * sizeof(int), sizeof(fd));
            if (c->in_fds_len < RSERVE_I_FDS)
                c->in_fds[c->in_fds_len++] = fd;
            else
                close(fd);
        }
    }
    return 1;
}

/* Why a header may not be, or NULL. */
static const char *rserve_i_refuse(const struct rserve_i_frame *f)
{
    if (f->flags & ~(unsigned)(RSERVE_I_END | RSERVE_I_MEMFD))
        return "a frame with unknown flags";
    if (f->meta_len > RSERVE_I_META_MAX)
        return "a frame with too much metadata";
    if (f->fds != (f->flags & RSERVE_I_MEMFD ? 1U : 0U) &&
        (f->type != RSERVE_I_INIT || f->fds != 1 || (f->flags & RSERVE_I_MEMFD)))
        return "a frame with unexpected descriptors";
    if (f->body_len >
        (f->flags & RSERVE_I_MEMFD ? (uint64_t)INT64_MAX : (uint64_t)RSERVE_I_BODY_MAX))
        return "a frame with too long a body";
    return NULL;
}

/* The next whole frame of the input, which it is taken out of. 1, or 0: more bytes are needed. */
static int rserve_i_next(struct rserve_i *c, struct rserve_i_frame *f)
{
    size_t have = c->in->end - c->in->start, total = 24;
    char *p = c->in->data + c->in->start;
    const char *why;
    struct stat st;

    c->need = 0;
    if (have < total)
        return 0;
    f->meta_len = (size_t)rserve_i_get(p, 4);
    f->type = (unsigned char)p[4];
    f->flags = (unsigned char)p[5];
    f->fds = (unsigned)rserve_i_get(p + 6, 2);
    f->stream = rserve_i_get(p + 8, 8);
    f->body_len = rserve_i_get(p + 16, 8);
    f->body_fd = -1;
    why = rserve_i_refuse(f);
    if (!why) {
        total += f->meta_len + (f->flags & RSERVE_I_MEMFD ? 0 : (size_t)f->body_len);
        if (have < total) {
            c->need = total - have;
            return 0;
        }
        if (f->fds && !c->in_fds_len)
            why = "a frame without its descriptor";
    }
    if (!why && f->fds) {
        f->body_fd = c->in_fds[0];
        memmove(c->in_fds, c->in_fds + 1, --c->in_fds_len * sizeof(int));
        if (fstat(f->body_fd, &st) < 0 || !S_ISREG(st.st_mode) ||
            ((f->flags & RSERVE_I_MEMFD) && (uint64_t)st.st_size < f->body_len)) {
            close(f->body_fd);
            why = "a memfd that is shorter than its body";
        }
    }
    if (why) {
        rserve_i_break(c, why);
        return 0;
    }
    f->meta = p + 24;
    f->body = f->flags & RSERVE_I_MEMFD ? NULL : f->meta + f->meta_len;
    c->in->start += total;
    return 1;
}

/* Appends the body of a frame, wherever it is. -1: more than `most` in all. */
static int rserve_i_gather(struct rserve_i_buf *b, const struct rserve_i_frame *f, size_t most)
{
    size_t len = (size_t)f->body_len, done = 0;

    if (len > most || b->end - b->start > most - len)
        return -1;
    if (f->body_fd < 0) {
        rserve_i_append(b, f->body, len);
        return 0;
    }
    rserve_i_reserve(b, len);
    while (done < len) {
        ssize_t n = pread(f->body_fd, b->data + b->end, len - done, (off_t)done);

        if (n == 0 || (n < 0 && errno != EINTR))
            return -1;
        if (n > 0) {
            done += (size_t)n;
            b->end += (size_t)n;
        }
    }
    return 0;
}

/* A field of any other frame's metadata, or NULL. */
static const char *rserve_i_find(const struct rserve_i_frame *f, unsigned tag, size_t *ret_len)
{
    const char *p = f->meta;
    size_t len = f->meta_len, n;

    for (; len >= 5 && (n = (size_t)rserve_i_get(p + 1, 4)) <= len - 5; p += 5 + n, len -= 5 + n) {
        if ((unsigned char)*p != tag)
            continue;
        *ret_len = n;
        return p + 5;
    }
    return NULL;
}

/* --- metadata of a request ----------------------------------------------------------------------- */

#define RSERVE_I_AT(member) offsetof(struct rserve_request, member)

static size_t rserve_i_member_of(unsigned tag)
{
    static const unsigned char at[RSERVE_I_TAGS] = {0, /* in the order of the tags */
                                                    RSERVE_I_AT(id),
                                                    RSERVE_I_AT(app),
                                                    RSERVE_I_AT(deployment),
                                                    RSERVE_I_AT(method),
                                                    0,
                                                    0,
                                                    RSERVE_I_AT(model_id),
                                                    RSERVE_I_AT(traceparent),
                                                    RSERVE_I_AT(route),
                                                    RSERVE_I_AT(http_method),
                                                    RSERVE_I_AT(path),
                                                    RSERVE_I_AT(query),
                                                    RSERVE_I_AT(headers),
                                                    RSERVE_I_AT(root_path),
                                                    RSERVE_I_AT(client),
                                                    RSERVE_I_AT(server),
                                                    RSERVE_I_AT(scheme),
                                                    RSERVE_I_AT(http_version),
                                                    0,
                                                    RSERVE_I_AT(content_type),
                                                    RSERVE_I_AT(session_id),
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    0};

    return tag < RSERVE_I_TAGS ? at[tag] : 0;
}

static size_t rserve_i_width(unsigned tag)
{
    return tag == RSERVE_I_KIND || tag == RSERVE_I_STREAM ? 1 : tag == RSERVE_I_TIMEOUT_MS ? 4 : 0;
}

/* Texts are given their NUL in place: where the tag of the next field stood, which has been read;
 * the last one is moved into its own length bytes. */
static int rserve_i_parse(struct rserve_request *req, char *p, size_t len)
{
    const char **last = NULL;
    uint64_t seen = 0;
    size_t n = 0;

    while (len) {
        unsigned tag = (unsigned char)*p;
        size_t member = rserve_i_member_of(tag), width = rserve_i_width(tag);

        if (len < 5 || (n = (size_t)rserve_i_get(p + 1, 4)) > len - 5 || (width && n != width))
            return -1;
        if (tag < RSERVE_I_TAGS) {
            if (seen & (uint64_t)1 << tag)
                return -1;
            seen |= (uint64_t)1 << tag;
        }
        *p = '\0';
        last = NULL;
        if (tag == RSERVE_I_KIND && p[5] != RSERVE_HTTP && p[5] != RSERVE_CALL)
            return -1;
        if (tag == RSERVE_I_KIND)
            req->kind = p[5] == RSERVE_CALL ? RSERVE_CALL : RSERVE_HTTP;
        else if (tag == RSERVE_I_STREAM)
            req->wants_stream = p[5] == 1;
        else if (tag == RSERVE_I_TIMEOUT_MS)
            req->timeout_ms = (uint32_t)rserve_i_get(p + 5, 4);
        if (tag == RSERVE_I_HEADERS)
            req->headers_len = n;
        if (member) {
            last = (const char **)(void *)((char *)req + member);
            *last = p + 5;
        }
        p += 5 + n;
        len -= 5 + n;
    }
    if (last) {
        memmove(p - n - 1, p - n, n);
        p[-1] = '\0';
        *last = p - n - 1;
    }
    return seen >> RSERVE_I_KIND & 1 ? 0 : -1;
}

const char *rserve_header(const struct rserve_request *req, const char *name)
{
    const char *p = req->headers, *end = p + req->headers_len;

    while (p < end) {
        const char *value = p + strlen(p) + 1; /* a NUL follows the last byte of all */

        if (value >= end)
            break;
        if (!strcmp(p, name))
            return value;
        p = value + strlen(value) + 1;
    }
    return "";
}

static int rserve_i_describe(struct rserve_i_job *j, char *meta, size_t len)
{
    static const char none[] = "";
    struct rserve_request *q = &j->req;

    memset(q, 0, sizeof(*q));
    q->id = q->app = q->deployment = q->method = q->http_method = q->path = q->query = none;
    q->route = q->root_path = q->client = q->server = q->scheme = q->http_version = none;
    q->content_type = q->model_id = q->session_id = q->traceparent = q->headers = q->body = none;
    q->body_fd = -1;
    if (rserve_i_parse(q, meta, len) < 0)
        return -1;
    if (q->kind == RSERVE_HTTP)
        q->content_type = rserve_header(q, "content-type");
    else if (!*q->method)
        q->method = "__call__";
    return 0;
}

/* --- requests ------------------------------------------------------------------------------------ */

static void rserve_i_recycle(struct rserve_i *c, struct rserve_i_job *j)
{
    if (j->map)
        munmap(j->map, j->map_len);
    j->map = NULL;
    if (j->req.body_fd >= 0)
        close(j->req.body_fd);
    j->req.body_fd = -1;
    rserve_i_clear(&j->meta, 64 << 10);
    rserve_i_clear(&j->body, 1 << 20);
    if (j == &c->place)
        return;
    j->next = c->idle;
    c->idle = j;
}

static struct rserve_i_job *rserve_i_job_new(struct rserve_i *c)
{
    struct rserve_i_job *j = c->idle;

    if (j) {
        c->idle = j->next;
    } else {
        j = (struct rserve_i_job *)rserve_i_alloc(NULL, sizeof(*j));
        memset(j, 0, sizeof(*j));
        j->req.body_fd = -1;
    }
    j->next = NULL;
    return j;
}

/* The whole body is there: as bytes, or as a file to map. */
static void rserve_i_set_body(struct rserve_i_job *j, char *body, size_t len, int *fd)
{
    j->req.body_len = len;
    if (*fd < 0) {
        j->req.body = body;
    } else if (len) {
        void *map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, *fd, 0);

        if (map == MAP_FAILED) {
            fprintf(stderr, "rserve_replica: out of memory for %zu bytes\n", len);
            abort();
        }
        j->map = (char *)map;
        j->map_len = len;
        j->req.body = j->map;
    }
    j->req.body_fd = *fd;
    *fd = -1;
}

/* Is this a request that the handler should see? If not, it has been answered. */
static int rserve_i_admit(struct rserve_i *c, struct rserve_i_job *j)
{
    const char *const *m = c->options.methods;
    struct rserve_request *q = &j->req;
    char why[400];

    if (q->kind != RSERVE_CALL)
        return 1;
    while (m && *m && strcmp(*m, q->method) != 0)
        m++;
    if (m && !*m) {
        snprintf(why, sizeof(why), "deployment %s has no method '%s'", c->deployment, q->method);
        rserve_i_send_error(c, j->res.stream, RSERVE_NOT_FOUND, "AttributeError", why);
        return 0;
    }
    /* Also with a 5 behind it: arrays, which are neither bytes nor str. */
    if (strncmp(q->content_type, RSERVE_I_PICKLE, strlen(RSERVE_I_PICKLE)) != 0 ||
        c->options.raw_calls)
        return 1;
    if (strcmp(q->content_type, RSERVE_I_PICKLE) == 0) {
        j->res.pickle = 1;
        q->content_type = "application/octet-stream";
        if (rserve_i_arguments(q) == 0)
            return 1;
    }
    snprintf(why, sizeof(why),
             "deployment %s is an executable: call %s with one argument of type bytes or str",
             c->deployment, q->method);
    rserve_i_send_error(c, j->res.stream, RSERVE_USER, "TypeError", why);
    return 0;
}

/* Runs the handler. Lock held on entry and exit, not in between. */
/* Tells that work begins. 0: the node has taken the request back; it may have seen our mark meanwhile and left
 * the request here after all, so it is told that nobody works on it. */
static int rserve_i_starts(struct rserve_i *c, uint64_t stream)
{
    size_t place = (size_t)(stream / 2) % RSERVE_I_STARTS;

    if (!c->starts)
        return 1;
    __atomic_store_n(&c->starts[place], stream, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->starts[RSERVE_I_STARTS + place], __ATOMIC_SEQ_CST) != stream)
        return 1;
    __atomic_store_n(&c->starts[place], stream - 1, __ATOMIC_SEQ_CST);
    rserve_i_end(c, rserve_i_begin(c), RSERVE_I_CANCEL, 0, stream, NULL, 0, NULL);
    return 0;
}

static void rserve_i_run(struct rserve_i *c, struct rserve_i_job *j)
{
    struct rserve_i_job **at;
    int r;

    j->res.c = c;
    j->res.credit = RSERVE_I_WINDOW_SIZE;
    j->res.kind = (int)j->req.kind;
    j->res.items = j->req.wants_stream;
    j->res.state = RSERVE_I_FRESH;
    j->res.pickle = j->res.cancelled = 0;
    j->res.headers.end = 0;
    j->next = c->running;
    c->running = j;
    if (rserve_i_starts(c, j->res.stream) && rserve_i_admit(c, j)) {
        rserve_i_unlock(c);
        r = c->handler(&j->req, &j->res, c->arg);
        if (j->res.state == RSERVE_I_STREAMING && r == 0)
            rserve_stream_end(&j->res);
        else if (j->res.state != RSERVE_I_DONE && r)
            rserve_fail(&j->res, RSERVE_USER, "RuntimeError", "the handler failed");
        else if (j->res.state != RSERVE_I_DONE)
            rserve_fail(&j->res, RSERVE_INTERNAL, "RuntimeError",
                        "the handler returned without an answer");
        rserve_i_lock(c);
        if (j->res.cancelled) /* its slot is free again */
            rserve_i_send_error(c, j->res.stream, RSERVE_CANCELLED, NULL, "cancelled");
    }
    for (at = &c->running; *at != j;)
        at = &(*at)->next;
    *at = j->next;
    rserve_i_recycle(c, j);
}

static void rserve_i_run_queue(struct rserve_i *c)
{
    while (c->queue && !c->closed) {
        struct rserve_i_job *j = c->queue;

        c->queue = j->next;
        if (!c->queue)
            c->queue_end = &c->queue;
        c->busy++;
        rserve_i_run(c, j);
        c->busy--;
    }
}

static void rserve_i_enqueue(struct rserve_i *c, struct rserve_i_job *j)
{
    j->next = NULL;
    *c->queue_end = j;
    c->queue_end = &j->next;
    if (c->options.threads)
        pthread_cond_signal(&c->work);
}

/* The fast path: the handler sees the frame where it was read. */
static void rserve_i_run_in_place(struct rserve_i *c, struct rserve_i_frame *f)
{
    struct rserve_i_job *j = &c->place;

    if (rserve_i_describe(j, f->meta, f->meta_len) < 0) {
        rserve_i_break(c, "a REQUEST with broken metadata");
        return;
    }
    /* metadata first: the NUL of its last text lies in its own bytes, never in the body's */
    rserve_i_set_body(j, f->body, (size_t)f->body_len, &f->body_fd);
    j->res.stream = f->stream;
    c->held = c->in;
    c->busy++;
    rserve_i_run(c, j);
    c->busy--;
    if (c->held != c->in) {
        if (c->spare) {
            free(c->spare->data);
            free(c->spare);
        }
        rserve_i_clear(c->held, 4 << 20);
        c->spare = c->held;
    }
    c->held = NULL;
}

static void rserve_i_on_request(struct rserve_i *c, struct rserve_i_frame *f)
{
    struct rserve_i_job *j;
    int end = (f->flags & RSERVE_I_END) != 0;

    if (!c->ready || !f->stream || f->stream % 2) {
        rserve_i_break(c, "a REQUEST that should not come");
        return;
    }
    if (f->body_len > c->options.max_body) {
        rserve_i_send_error(c, f->stream, RSERVE_TOO_LARGE, "ValueError", "the body is too large");
        return;
    }
    if (end && !c->busy && !c->queue && !c->options.threads) {
        rserve_i_run_in_place(c, f);
        return;
    }
    j = rserve_i_job_new(c);
    rserve_i_append(&j->meta, f->meta, f->meta_len);
    j->res.stream = f->stream;
    if (rserve_i_describe(j, j->meta.data, f->meta_len) < 0) {
        rserve_i_break(c, "a REQUEST with broken metadata");
        rserve_i_recycle(c, j);
    } else if (end && f->body_fd >= 0) {
        rserve_i_set_body(j, NULL, (size_t)f->body_len, &f->body_fd);
        rserve_i_enqueue(c, j);
    } else if (rserve_i_gather(&j->body, f, c->options.max_body) < 0) {
        rserve_i_send_error(c, f->stream, RSERVE_INTERNAL, "OSError", "cannot read the body");
        rserve_i_recycle(c, j);
    } else if (end) {
        rserve_i_set_body(j, j->body.data, j->body.end, &f->body_fd);
        rserve_i_enqueue(c, j);
    } else {
        rserve_i_credit(c, f->stream, f->body_len);
        j->next = c->partial;
        c->partial = j;
    }
}

/* Takes the job of a stream out of a list. */
static struct rserve_i_job *rserve_i_take(struct rserve_i_job **list, uint64_t stream)
{
    struct rserve_i_job *j;

    for (; *list && (*list)->res.stream != stream;)
        list = &(*list)->next;
    j = *list;
    if (j)
        *list = j->next;
    return j;
}

static void rserve_i_on_body(struct rserve_i *c, struct rserve_i_frame *f)
{
    struct rserve_i_job *j = rserve_i_take(&c->partial, f->stream);
    int none = -1;

    if (!j)
        return;
    if (rserve_i_gather(&j->body, f, c->options.max_body) < 0) {
        rserve_i_send_error(c, f->stream, RSERVE_TOO_LARGE, "ValueError", "the body is too large");
        rserve_i_recycle(c, j);
    } else if (f->flags & RSERVE_I_END) {
        rserve_i_set_body(j, j->body.data ? j->body.data : j->meta.data, j->body.end, &none);
        rserve_i_enqueue(c, j);
    } else {
        rserve_i_credit(c, f->stream, f->body_len);
        j->next = c->partial;
        c->partial = j;
    }
}

static void rserve_i_on_cancel(struct rserve_i *c, uint64_t stream)
{
    struct rserve_i_job *j = rserve_i_take(&c->partial, stream);

    if (!j) {
        j = rserve_i_take(&c->queue, stream);
        for (c->queue_end = &c->queue; *c->queue_end;)
            c->queue_end = &(*c->queue_end)->next;
    }
    if (j) {
        rserve_i_recycle(c, j);
        rserve_i_send_error(c, stream, RSERVE_CANCELLED, NULL, "cancelled");
        return;
    }
    for (j = c->running; j; j = j->next)
        if (j->res.stream == stream)
            j->res.cancelled = 1;
}

static void rserve_i_on_window(struct rserve_i *c, const struct rserve_i_frame *f)
{
    struct rserve_i_job *j = c->running;
    size_t n = 0;
    const char *credit = rserve_i_find(f, RSERVE_I_CREDIT, &n);

    while (j && j->res.stream != f->stream)
        j = j->next;
    if (!credit || n != 4)
        rserve_i_break(c, "a WINDOW without credit");
    else if (j)
        j->res.credit += (int64_t)rserve_i_get(credit, 4);
}

#ifdef __cplusplus
}
#endif

#endif
