/* Where the lines of the access log go, and what happens when they cannot go there. */
#include "net/http/access_log.h"
#include "tests/unit/check_main.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/access-log-XXXXXX", path[64], moved[64];
static struct rs_loop *loop;
static struct rs_metrics *metrics;
static struct rs_series *dropped;
static struct rs_access_log *l;
static struct rs_error err;

static void setup(void)
{
    const struct rs_family_conf conf = {.kind = RS_COUNTER, .name = "dropped", .help = "x"};

    signal(SIGPIPE, SIG_IGN);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/log", dir);
    snprintf(moved, sizeof(moved), "%s/log.1", dir);
    ck_assert_int_eq(rs_loop_new(&loop, &err), 0);
    metrics = rs_metrics_new();
    dropped = rs_family_series(rs_metrics_family(metrics, &conf), NULL);
}

static void teardown(void)
{
    rs_access_log_free(l);
    l = NULL;
    rs_loop_free(loop);
    rs_metrics_free(metrics);
    unlink(path);
    unlink(moved);
    rmdir(dir);
}

static void open_log(const char *at)
{
    ck_assert_msg(rs_access_log_open(&l, loop, at, dropped, &err) == 0, "%s", err.msg);
}

static void say(const char *text)
{
    struct rs_buf *b = rs_access_log_line(l);

    if (b)
        rs_buf_printf(b, "%s\n", text);
}

static double lost(void)
{
    struct rs_buf text = {0};
    const char *at;
    double n;

    rs_metrics_text(metrics, &text);
    at = strstr(rs_buf_text(&text), "\ndropped ");
    n = at ? atof(at + 9) : 0;
    rs_buf_fini(&text);
    return n;
}

static void expect_file(const char *name, const char *want)
{
    char got[1000] = "";
    FILE *f = fopen(name, "re");

    ck_assert_msg(f != NULL, "%s", name);
    got[fread(got, 1, sizeof(got) - 1, f)] = '\0';
    fclose(f);
    ck_assert_str_eq(got, want);
}

START_TEST(lines_are_written_together)
{
    open_log(path);
    say("one");
    say("two");
    expect_file(path, "");
    rs_access_log_flush(l);
    expect_file(path, "one\ntwo\n");
    say("three");
    rs_access_log_free(l); /* what is there is written */
    l = NULL;
    expect_file(path, "one\ntwo\nthree\n");
    open_log(path); /* it is appended to */
    say("four");
    rs_access_log_flush(l);
    expect_file(path, "one\ntwo\nthree\nfour\n");
    ck_assert(lost() == 0);
}
END_TEST

/* Enough of them are written at the end of the turn, fewer a little later. */
START_TEST(lines_that_are_due)
{
    char text[100] = "";
    struct stat st;

    memset(text, 'x', 99);
    open_log(path);
    say("soon");
    rs_access_log_turn(l);
    expect_file(path, "");
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(rs_loop_turn(loop, 100 * RS_MS), 0);
        if (stat(path, &st) == 0 && st.st_size)
            break;
    }
    expect_file(path, "soon\n");
    for (int i = 0; i < 164; i++)
        say(text);
    rs_access_log_turn(l);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 5 + 16400);
}
END_TEST

START_TEST(reopened_when_told)
{
    open_log(path);
    say("old");
    ck_assert_int_eq(rename(path, moved), 0);
    rs_access_log_reopen(l);
    say("new");
    rs_access_log_flush(l);
    expect_file(moved, "old\n");
    expect_file(path, "new\n");
}
END_TEST

START_TEST(reopened_when_renamed)
{
    open_log(path);
    ck_assert_int_eq(rename(path, moved), 0);
    if (_i) { /* and made anew by who renamed it */
        int fd = open(path, O_WRONLY | O_CREAT, 0600);

        ck_assert_int_ge(fd, 0);
        close(fd);
    }
    say("new");
    rs_access_log_flush(l);
    expect_file(moved, "");
    expect_file(path, "new\n");
}
END_TEST

START_TEST(what_cannot_be_opened)
{
    char at[100];

    snprintf(at, sizeof(at), "%s/none/log", dir);
    ck_assert_int_eq(rs_access_log_open(&l, loop, at, dropped, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, at));
    ck_assert_ptr_nonnull(strstr(err.msg, "No such file or directory"));
    ck_assert_int_eq(rs_access_log_open(&l, loop, dir, dropped, &err), -1);
    ck_assert_ptr_null(l);
}
END_TEST

START_TEST(the_old_file_stays_if_there_is_no_new_one)
{
    open_log(path);
    ck_assert_int_eq(rename(path, moved), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    rs_access_log_reopen(l);
    say("still");
    rs_access_log_flush(l);
    expect_file(moved, "still\n");
    rmdir(path);
}
END_TEST

START_TEST(a_full_disk_drops_and_counts)
{
    open_log("/dev/full");
    say("one");
    say("two");
    rs_access_log_flush(l);
    ck_assert(lost() == 2);
    say("three"); /* not tried again so soon */
    rs_access_log_flush(l);
    ck_assert(lost() == 3);
}
END_TEST

/* Reads what is there; counts whole lines of 99 characters. */
static size_t drain(int fd)
{
    static char data[1 << 20];
    static size_t have;
    size_t lines = 0;
    ssize_t n;

    while ((n = read(fd, data + have, sizeof(data) - have)) > 0) {
        have += (size_t)n;
        for (size_t at = 0;; lines++, at += 100) {
            if (have - at < 100) {
                memmove(data, data + at, have - at);
                have -= at;
                break;
            }
            if (data[at + 99] != '\n' || memchr(data + at, '\n', 99))
                ck_abort_msg("a broken line");
        }
    }
    return lines;
}

/* Nobody reads: what finds no room is dropped, whole; the rest arrives when somebody does. */
START_TEST(a_full_pipe_holds_nothing_up)
{
    size_t said = 10000, got = 0;
    char text[100] = "";
    int fd;

    memset(text, 'x', 99);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    open_log(path);
    for (size_t i = 0; i < said; i++) {
        say(text);
        if (i % 7 == 0)
            rs_access_log_flush(l);
    }
    ck_assert(lost() > 0 && lost() < (double)said);
    for (int turns = 0; turns < 1000 && (double)got < (double)said - lost(); turns++) {
        got += drain(fd);
        ck_assert_int_eq(rs_loop_turn(loop, 0), 0);
    }
    ck_assert_msg((double)got == (double)said - lost(), "%zu", got);
    say(text);
    rs_access_log_flush(l);
    ck_assert_uint_eq(drain(fd), 1);
    close(fd); /* the reader leaves */
    say(text);
    rs_access_log_flush(l);
    ck_assert((double)got == (double)said + 1 - lost());
}
END_TEST

/* Standard output is a pipe that others use too: it stays blocking for them. */
START_TEST(standard_output)
{
    int pair[2], old = dup(STDOUT_FILENO);
    char got[20] = "";

    if (_i)
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    else
        ck_assert_int_eq(pipe(pair), 0);
    ck_assert_int_ge(dup2(pair[1], STDOUT_FILENO), 0);
    open_log("-");
    say("hello");
    rs_access_log_flush(l);
    ck_assert_int_eq(fcntl(STDOUT_FILENO, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_ge(dup2(old, STDOUT_FILENO), 0);
    ck_assert_int_eq(read(pair[0], got, sizeof(got)), 6);
    ck_assert_str_eq(got, "hello\n");
    close(pair[0]);
    close(pair[1]);
    close(old);
}
END_TEST

RS_CHECK_MAIN("access_log", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_test(tc, lines_are_written_together);
              tcase_add_test(tc, lines_that_are_due); tcase_add_test(tc, reopened_when_told);
              tcase_add_loop_test(tc, reopened_when_renamed, 0, 2);
              tcase_add_test(tc, what_cannot_be_opened);
              tcase_add_test(tc, the_old_file_stays_if_there_is_no_new_one);
              tcase_add_test(tc, a_full_disk_drops_and_counts);
              tcase_add_test(tc, a_full_pipe_holds_nothing_up);
              tcase_add_loop_test(tc, standard_output, 0, 2);)
