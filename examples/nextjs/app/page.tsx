"use client";

import { useEffect, useState } from "react";

interface Progress {
  status: string;
  done: number;
  total: number;
  message: string;
}

/** Starts a crawl and shows how far it is. */
export default function Page() {
  const [id, setId] = useState<string>();
  const [progress, setProgress] = useState<Progress>();

  useEffect(() => {
    if (!id) return;
    const source = new EventSource(`/api/crawls/${id}/events`);
    const show = (event: MessageEvent<string>) => {
      const { status, meta } = JSON.parse(event.data);
      setProgress((before) => ({
        status,
        done: meta?.progress ?? before?.done ?? 0,
        total: meta?.total ?? before?.total ?? 1,
        message: meta?.message ?? "",
      }));
    };
    for (const kind of ["snapshot", "state", "progress"]) source.addEventListener(kind, show);
    source.addEventListener("end", (event) => {
      show(event);
      source.close();
    });
    return () => source.close();
  }, [id]);

  const start = async () => {
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ category: "봉사 공지사항 크롤링" });
    const answer = await fetch("/api/crawls", { method: "POST", headers, body });
    setProgress(undefined);
    setId((await answer.json()).id);
  };

  return (
    <main>
      <h1>Crawls</h1>
      <button onClick={start}>Crawl the volunteer notices</button>
      {progress && (
        <p>
          <progress value={progress.status === "SUCCESS" ? progress.total : progress.done} max={progress.total} /> {progress.status}{" "}
          {progress.message}
        </p>
      )}
    </main>
  );
}
