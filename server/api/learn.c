/* learn.c: GET /learn and /learn/{topic}: short lessons on backpropagation, in plain text.
 *
 * Each lesson is a file of server/web/learn, NNN_topic.txt, built into the binary: its first line is the title, and its
 * commands are a session that a test runs. The numbers are the order of reading, the first digit the chapter.
 *
 * Threads: the connection's; the lessons are constant.
 */
#include "api/api.h"
#include "api/common.h"
#include "embedded.h"
#include "problems.h"

#include <stdio.h>
#include <string.h>

#define LESSONS_MAX 64
#define TOPIC_MAX 64

static const char *const chapters[] = {"The ideas", "What goes wrong, and why", "What people get wrong"};

/* "020_error-signal.txt" -> "error-signal". */
static const char *topic_of(const struct bp_embedded *lesson, char ret[TOPIC_MAX])
{
    snprintf(ret, TOPIC_MAX, "%.*s", (int)strcspn(lesson->name + 4, "."), lesson->name + 4);
    return ret;
}

void bp_api_lessons(struct bp_request *request, struct bp_reply *reply, void *app)
{
    struct bp_text text = {0};
    char topic[TOPIC_MAX];
    int chapter = -1;
    (void)request, (void)app;
    bp_text_add(&text, "Backpropagation, one idea a page. Each page ends with commands to try on this server.\n");
    for (const struct bp_embedded *lesson = bp_lessons; lesson->name; lesson++) {
        if (lesson->name[0] - '0' != chapter) {
            chapter = lesson->name[0] - '0';
            bp_text_add(&text, "\n%s\n", chapters[chapter]);
        }
        bp_text_add(&text, "  /learn/%-28s %.*s\n", topic_of(lesson, topic),
                    (int)strcspn((const char *)lesson->data, "\n"), (const char *)lesson->data);
    }
    bp_text_reply(&text, reply, "text/plain; charset=utf-8");
}

void bp_api_lesson(struct bp_request *request, struct bp_reply *reply, void *app)
{
    const char *wanted = bp_request_arg(request, 0), *topics[LESSONS_MAX];
    char names[LESSONS_MAX][TOPIC_MAX];
    size_t n = 0;
    (void)app;
    for (const struct bp_embedded *lesson = bp_lessons; lesson->name && n < LESSONS_MAX; lesson++) {
        topics[n] = topic_of(lesson, names[n]);
        if (strcmp(topics[n++], wanted) != 0)
            continue;
        bp_reply_text(reply, 200, "%s", (const char *)lesson->data);
        return;
    }
    const char *near = bp_nearest(wanted, topics, n);
    bp_problem(reply, 404, "not_found", "there is no lesson on that%s%s%s; GET /learn lists all",
               near ? ", did you mean /learn/" : "", near ? near : "", near ? "?" : "");
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_string(topics[i]));
    bp_problem_member(reply, "topics", list);
}
