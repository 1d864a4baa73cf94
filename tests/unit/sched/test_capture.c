/* Lines of replicas: split, prefixed, kept, rotated, dropped. */
#include "sched/supervise/capture.h"

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "sched/supervise/logfile.h"
#include "tests/unit/check_main.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct rs_loop *loop;
static struct rs_buf echoed;
static char dir[64];

static void setup(void)
{
    ck_assert_int_eq(rs_loop_new(&loop, NULL), 0);
    strcpy(dir, "/tmp/rserve-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    rs_log_setup(RS_LOG_OFF, RS_LOG_TEXT);
}

static void teardown(void)
{
    char command[128];

    rs_loop_free(loop);
    rs_buf_fini(&echoed);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void sink(int stream, const char *line, size_t len, void *arg)
{
    rs_buf_printf(&echoed, "%d:%.*s\n", stream, (int)len, line);
}

static struct rs_capture_hub *new_hub(struct rs_capture_conf conf)
{
    struct rs_capture_hub *h = NULL;

    ck_assert_int_eq(rs_capture_hub_new(&h, loop, &conf, NULL), 0);
    rs_capture_hub_sink(h, sink, NULL);
    return h;
}

static char *read_file(const char *path)
{
    struct rs_buf b = {0};
    int fd = open(path, O_RDONLY);
    ssize_t n;

    ck_assert_msg(fd >= 0, "%s", path);
    while ((n = read(fd, rs_buf_reserve(&b, 65536), 65536)) > 0)
        rs_buf_commit(&b, (size_t)n);
    close(fd);
    return b.data ? rs_buf_steal(&b) : strdup("");
}

static void say(int fd, const char *text)
{
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

START_TEST(lines_are_split)
{
    struct rs_capture_hub *h =
        new_hub((struct rs_capture_conf){.dir = dir, .echo = true, .colour = 0});
    struct rs_capture *c = NULL;
    int out = -1, error = -1;

    ck_assert_int_eq(rs_capture_new(&c, h, "rag#Gen#ab12cd34", &out, &error, NULL), 0);
    say(out, "one\ntw");
    ck_assert_int_eq(rs_loop_turn(loop, 0), 0);
    ck_assert_str_eq(rs_buf_text(&echoed), "1:(rag#Gen#ab12cd34) one\n");
    say(out, "o\r\n\nrest");
    say(error, "oops\n");
    rs_capture_drain(c);
    ck_assert_str_eq(rs_buf_text(&echoed), "1:(rag#Gen#ab12cd34) one\n1:(rag#Gen#ab12cd34) two\n"
                                           "1:(rag#Gen#ab12cd34) \n2:(rag#Gen#ab12cd34) oops\n");
    ck_assert_str_eq(rs_capture_tail(c), "oops\n");
    close(out);
    close(error);
    rs_auto(rs_freep) char *path = strdup(rs_capture_path(c));
    rs_auto(rs_freep) char *same = rs_capture_path_of(dir, "rag#Gen#ab12cd34");

    ck_assert_str_eq(path, same);
    ck_assert_ptr_nonnull(strstr(path, "/rag_Gen_ab12cd34.log"));
    rs_capture_free(c); /* the last line came without its newline */
    rs_auto(rs_freep) char *text = read_file(path);

    ck_assert_str_eq(text, "one\ntwo\n\noops\nrest\n");
    ck_assert_uint_eq(rs_capture_dropped(h), 0);
    rs_capture_hub_free(h);
}
END_TEST

START_TEST(long_lines_are_cut)
{
    struct rs_capture_hub *h = new_hub((struct rs_capture_conf){.dir = dir});
    struct rs_capture *c = NULL;
    int out = -1, error = -1;
    rs_auto(rs_freep) char *text = malloc(RS_CAPTURE_LINE + 11);

    memset(text, 'x', RS_CAPTURE_LINE + 10);
    text[RS_CAPTURE_LINE + 10] = '\0';
    ck_assert_int_eq(rs_capture_new(&c, h, "a#b#c", &out, &error, NULL), 0);
    rs_auto(rs_freep) char *path = strdup(rs_capture_path(c));

    say(out, text);
    say(out, "\n");
    close(out);
    close(error);
    rs_capture_free(c);
    rs_auto(rs_freep) char *got = read_file(path);

    ck_assert_uint_eq(strlen(got), RS_CAPTURE_LINE + 12);
    ck_assert_int_eq(got[RS_CAPTURE_LINE], '\n');
    rs_capture_hub_free(h);
}
END_TEST

START_TEST(tail_is_bounded)
{
    struct rs_capture_hub *h = new_hub((struct rs_capture_conf){0});
    struct rs_capture *c = NULL;
    int out = -1, error = -1;

    ck_assert_int_eq(rs_capture_new(&c, h, "a#b#c", &out, &error, NULL), 0);
    ck_assert_ptr_null(rs_capture_path(c));
    for (int i = 0; i < 3000; i++) {
        char line[32];

        snprintf(line, sizeof(line), "line %d\n", i);
        say(error, line);
        if (i % 100 == 0)
            rs_capture_drain(c);
    }
    rs_capture_drain(c);
    const char *tail = rs_capture_tail(c);

    ck_assert_uint_le(strlen(tail), 2 * 4096 + 32);
    ck_assert_uint_ge(strlen(tail), 2048);
    ck_assert_int_eq(strncmp(tail, "line ", 5), 0); /* whole lines */
    ck_assert_str_eq(tail + strlen(tail) - 10, "line 2999\n");
    close(out);
    close(error);
    rs_capture_free(c);
    rs_capture_hub_free(h);
}
END_TEST

START_TEST(files_rotate)
{
    char path[128], line[128];
    struct rs_logfile *f;

    snprintf(path, sizeof(path), "%s/x.log", dir);
    f = rs_logfile_new(path, 1000, 2);
    for (int i = 0; i < 100; i++) {
        int n = snprintf(line, sizeof(line), "%099d", i);

        ck_assert_uint_eq(rs_logfile_line(f, line, (size_t)n), 0);
        ck_assert_uint_eq(rs_logfile_flush(f), 0);
    }
    rs_logfile_free(f);
    struct stat st;

    ck_assert_int_ne(stat(path, &st), 0); /* 1000 bytes were written: the next line opens it */
    snprintf(path, sizeof(path), "%s/x.log.1", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 1000);
    rs_auto(rs_freep) char *newest = read_file(path);

    ck_assert_ptr_nonnull(strstr(newest, "99\n"));
    snprintf(path, sizeof(path), "%s/x.log.2", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    snprintf(path, sizeof(path), "%s/x.log.3", dir);
    ck_assert_int_ne(stat(path, &st), 0);
}
END_TEST

START_TEST(full_disk_drops_and_counts)
{
    struct rs_logfile *f = rs_logfile_new("/dev/full", 0, 0);

    ck_assert_uint_eq(rs_logfile_line(f, "one", 3), 0);
    ck_assert_uint_eq(rs_logfile_line(f, "two", 3), 0);
    ck_assert_uint_eq(rs_logfile_flush(f), 2);
    ck_assert_uint_eq(rs_logfile_flush(f), 0);
    rs_logfile_free(f);
    f = rs_logfile_new("/no/such/folder/x.log", 0, 0);
    rs_logfile_line(f, "one", 3);
    ck_assert_uint_eq(rs_logfile_flush(f), 1);
    rs_logfile_free(f);
}
END_TEST

/* A stdout that nobody reads holds nothing up and takes no memory without end. */
START_TEST(stuck_stdout_does_not_block)
{
    struct rs_capture_conf conf = {.echo = true, .colour = 0};
    struct rs_capture_hub *h = NULL;
    struct rs_capture *c = NULL;
    int out = -1, error = -1, p[2], saved = dup(1);
    int64_t begin = rs_clock_now();
    char line[1001];

    fflush(stdout);
    ck_assert_int_eq(pipe(p), 0);
    ck_assert_int_eq(dup2(p[1], 1), 1);
    ck_assert_int_eq(rs_capture_hub_new(&h, loop, &conf, NULL), 0);
    ck_assert_int_eq(rs_capture_new(&c, h, "a#b#c", &out, &error, NULL), 0);
    memset(line, 'y', 1000);
    line[999] = '\n';
    line[1000] = '\0';
    for (int i = 0; i < 3000; i++) {
        say(out, line);
        if (i % 20 == 0)
            rs_capture_drain(c);
    }
    rs_capture_drain(c);
    ck_assert_uint_gt(rs_capture_dropped(h), 500);
    ck_assert_uint_lt(rs_capture_dropped(h), 3000);
    ck_assert_int_lt(rs_clock_now() - begin, 5 * RS_SEC);
    close(out);
    close(error);
    rs_capture_free(c);
    rs_capture_hub_free(h);
    dup2(saved, 1);
    close(saved);
    close(p[0]);
    close(p[1]);
}
END_TEST

START_TEST(old_files_go)
{
    char path[128];
    struct rs_capture_hub *h;
    struct stat st;

    for (int i = 0; i < RS_LOGFILES_MAX + 10; i++) {
        snprintf(path, sizeof(path), "%s/r%04d.log", dir, i);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        const struct timespec when[2] = {{.tv_sec = 1000 + i}, {.tv_sec = 1000 + i}};

        ck_assert_int_eq(futimens(fd, when), 0);
        close(fd);
    }
    snprintf(path, sizeof(path), "%s/keep.txt", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    h = new_hub((struct rs_capture_conf){.dir = dir});
    ck_assert_int_eq(stat(path, &st), 0);
    snprintf(path, sizeof(path), "%s/r0009.log", dir);
    ck_assert_int_ne(stat(path, &st), 0);
    snprintf(path, sizeof(path), "%s/r0010.log", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    rs_capture_hub_free(h);
}
END_TEST

RS_CHECK_MAIN("capture", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_test(tc, lines_are_split); tcase_add_test(tc, long_lines_are_cut);
              tcase_add_test(tc, tail_is_bounded); tcase_add_test(tc, files_rotate);
              tcase_add_test(tc, full_disk_drops_and_counts);
              tcase_add_test(tc, stuck_stdout_does_not_block); tcase_add_test(tc, old_files_go);)
