/** Starts a crawl and answers at once. */
import { Problem } from "taskgate";
import { gate } from "../../../lib/gate";

export async function POST(request: Request): Promise<Response> {
  const { category } = await request.json();
  try {
    const task = await gate.submit("tasks.college_crawl_task", { args: [category], labels: { category } });
    return Response.json({ id: task.id }, { status: 202 });
  } catch (error) {
    if (error instanceof Problem) return Response.json({ detail: error.detail, errors: error.errors }, { status: error.status });
    throw error;
  }
}
