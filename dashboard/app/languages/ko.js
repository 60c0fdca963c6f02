// Korean: the English sentence and what it is in Korean. Words of the API (queue names, verdicts in JSON) stay as they are.

export const KOREAN = {
  // The frame
  Overview: '현황', Tasks: '작업', Submit: '제출', Errors: '오류', 'Dead letters': '실패 보관함', Queues: '큐', Workers: '워커', Schedules: '일정', Incidents: '장애', Audit: '감사 기록',
  Pages: '페이지', 'Short cuts': '바로 가기', 'Skip to the content': '본문으로 건너뛰기', Token: '토큰', Keys: '단축키', API: 'API', 'Log out': '로그아웃', 'local time': '현지 시각',
  system: '시스템', light: '밝게', dark: '어둡게', 'There is no such page': '그런 페이지가 없습니다', open: '열림', 'Not found': '찾을 수 없음',
  'The gateway has not answered since': '게이트웨이가 다음 시각부터 응답하지 않습니다:', '). What is shown is from then; trying again.': '). 화면은 그 시점의 내용이며, 다시 시도하는 중입니다.',
  'Access token': '접근 토큰', 'A token (tg_…) with the scopes that you need. It is kept until this tab is closed.': '필요한 권한이 있는 토큰(tg_…). 이 탭을 닫을 때까지 보관됩니다.', 'Use it': '사용',
  'A token (tg_…); it is kept until this tab is closed': '토큰(tg_…). 이 탭을 닫을 때까지 보관됩니다', 'Log in with your account': '계정으로 로그인', 'Log in': '로그인', Name: '이름', Password: '비밀번호', 'Use a token': '토큰 사용',
  Cancel: '취소', Close: '닫기', OK: '확인', Again: '다시', Save: '저장', Delete: '삭제', 'Delete…': '삭제…', Edit: '편집', Run: '실행', Pause: '일시 중지', Resume: '재개', 'New…': '새로 만들기…',
  'The gateway does not answer; trying again.': '게이트웨이가 응답하지 않아 다시 시도하는 중입니다.', 'This gateway has no': '이 게이트웨이에는 없습니다:',
  'This list': '이 목록', 'Go anywhere': '어디로든 이동', 'To the search field': '검색창으로', 'The next and the previous row': '다음 행, 이전 행', 'Open the row': '행 열기',
  'A page, a queue, a schedule, an id': '페이지, 큐, 일정, ID', Places: '이동할 곳', 'Copy as JSON': 'JSON으로 복사', Copied: '복사했습니다', 'As a table': '표로 보기',
  // Phases
  accepted: '접수됨', held: '보류', waiting: '대기', queued: '큐에 있음', received: '수신됨', running: '실행 중', retrying: '재시도 중', succeeded: '성공', failed: '실패', revoked: '취소됨', expired: '만료', skipped: '건너뜀', lost: '유실', ignored: '무시됨',
  // Overview
  Accepted: '접수', Ended: '종료', Failures: '실패율', Waiting: '대기', Oldest: '가장 오래된 것', Online: '온라인', '1 hour': '1시간', '6 hours': '6시간', '24 hours': '24시간', '7 days': '7일', '30 days': '30일',
  Throughput: '처리량', 'Waiting time': '대기 시간', 'Run time': '실행 시간', Range: '기간', 'not served': '처리하는 워커 없음', 'not ready': '준비되지 않음', Held: '보류', 'With workers': '워커가 보유', 'Drained in': '비우는 데',
  // Tasks
  Search: '검색', Phase: '상태', Task: '작업', Queue: '큐', Worker: '워커', Label: '레이블', any: '전체', 'waiting (all)': '대기 (전체)', 'with a worker': '워커에 있음', 'failed or lost': '실패 또는 유실', Filter: '적용', Clear: '지우기',
  'id, name, label, error': 'ID, 이름, 레이블, 오류', 'All that fit:': '조건에 맞는 전체:', 'All that fit': '조건에 맞는 전체', 'Many at once': '한꺼번에', 'Retry…': '재시도…', 'Revoke…': '취소…', Id: 'ID', Submitted: '제출', Ran: '실행 시간', 'Older ones': '이전 항목', 'Newer ones': '최근 항목',
  'No task fits': '조건에 맞는 작업이 없습니다', 'Clear the filters': '조건 지우기', 'Submit the first one': '첫 작업 제출하기', live: '실시간', 'connecting…': '연결 중…', 'not live': '실시간 아님', new: '새 작업', 'Select all': '모두 선택',
  All: '전체', Running: '실행 중', Succeeded: '성공', 'Failed or lost': '실패·유실', 'Other ends': '그 밖의 종료', Outcomes: '결과별', Columns: '열', Views: '보기', Export: '내보내기', Keep: '저장', 'Name of the view': '보기 이름', 'The list': '목록',
  Waited: '대기 시간', Retries: '재시도', Priority: '우선순위', Error: '오류', 'any time': '전체 기간', 'last 15 minutes': '최근 15분', 'last hour': '최근 1시간', 'last 24 hours': '최근 24시간', 'last 7 days': '최근 7일', 'Order the rows that are shown': '표시된 행 정렬',
  'Each message is submitted again as a new task. The old tasks stay in the history. What was sent again before is left alone.': '각 메시지를 새 작업으로 다시 제출합니다. 이전 작업은 기록에 남고, 이미 다시 보낸 작업은 건드리지 않습니다.',
  'What no worker has yet will never run. Workers that have one are told; what runs goes on, unless it is stopped.': '아직 워커가 가져가지 않은 작업은 실행되지 않습니다. 워커가 가진 작업은 취소를 통지하며, 실행 중인 작업은 중지하지 않는 한 계속됩니다.',
  'Which of them': '대상', 'they succeeded: this runs them a second time': '이미 성공한 작업입니다. 한 번 더 실행됩니다', 'No task fits.': '조건에 맞는 작업이 없습니다.', 'Stop what runs (SIGTERM)': '실행 중인 작업 중지 (SIGTERM)', 'At most per second (empty: as fast as it goes)': '초당 최대 개수 (비우면 제한 없음)', 'At most per second': '초당 최대 개수',
  'There are more than were counted. All that fit are part of it.': '센 것보다 더 많습니다. 조건에 맞는 전체가 대상입니다.', 'Go on': '계속', 'Stop here': '여기서 중단', 'The gateway goes on when this is closed.': '이 창을 닫아도 게이트웨이가 계속 진행합니다.', 'Left alone or refused': '건너뛰거나 거부됨', done: '완료', paused: '일시 중지됨', cancelled: '중단됨', retried: '재시도', prevented: '실행 방지', signalled: '통지됨', requeued: '다시 큐에 넣음', dismissed: '삭제됨',
  // One task
  Retry: '재시도', Revoke: '취소', Restart: '다시 시작', 'Restart…': '다시 시작…', 'Copy as curl': 'curl로 복사', 'Copy as Python': 'Python으로 복사', Actions: '동작', 'Copy the id': 'ID 복사', 'The id is copied': 'ID를 복사했습니다',
  'Revoke this task?': '이 작업을 취소할까요?', 'If no worker has it, it will never run. If one has it, the worker is told.': '워커가 가져가지 않았다면 실행되지 않습니다. 가져갔다면 워커에 통지합니다.', 'Stop it even if it runs (SIGTERM)': '실행 중이어도 중지 (SIGTERM)',
  'Restart this task?': '이 작업을 다시 시작할까요?', 'Revoke and submit again': '취소하고 다시 제출', 'This task is revoked: if it runs, its worker is told to stop it (SIGTERM), and its result is lost. Then the same message is submitted again as a new task.': '이 작업을 취소합니다. 실행 중이면 워커에 중지(SIGTERM)를 요청하고 결과는 사라집니다. 그런 다음 같은 메시지를 새 작업으로 다시 제출합니다.',
  'Run it a second time?': '한 번 더 실행할까요?', 'Run it again': '다시 실행', 'This task succeeded. The same message is submitted again as a new task, and whatever it does happens once more.': '이 작업은 성공했습니다. 같은 메시지를 새 작업으로 다시 제출하며, 작업이 하는 일이 한 번 더 일어납니다.',
  Timeline: '타임라인', Facts: '정보', Attempts: '시도', Attempt: '시도', Began: '시작', 'Ended as': '종료 상태', Took: '소요', Canvas: '캔버스', Evidence: '근거', Arguments: '인자', Result: '결과', Children: '하위 작업', Message: '메시지', Everything: '전체', Content: '내용', Progress: '진행', progress: '진행', 'unknown task': '알 수 없는 작업', 'Held until': '보류 종료', Expires: '만료', Parent: '부모', Root: '루트', Group: '그룹', 'Retry of': '재시도 대상', 'Retried as': '재시도한 작업', Schedule: '일정', Reason: '이유', Labels: '레이블', 'Edit and retry…': '고쳐서 재시도…',
  // Errors, dead letters
  Count: '건수', Trend: '추이', Last: '마지막', First: '처음', Example: '예', 'Re-queue': '다시 큐에 넣기', 'Re-queue…': '다시 큐에 넣기…', 'Re-queue all…': '모두 다시 큐에 넣기…', 'Delete all…': '모두 삭제…', 'no traceback': '추적 정보 없음', 'Nothing failed in this time': '이 기간에 실패한 작업이 없습니다', 'Failures are grouped here by task, error type and innermost frame.': '실패는 작업, 오류 종류, 가장 안쪽 프레임으로 묶여 표시됩니다.',
  'No dead letters': '보관된 실패가 없습니다', 'What fails for good or is lost waits here, until somebody runs it again or puts it away.': '최종 실패하거나 유실된 작업이 여기에 남아, 다시 실행하거나 치울 때까지 기다립니다.', 'Delete this dead letter?': '이 항목을 삭제할까요?', 'Delete all that fit?': '조건에 맞는 전체를 삭제할까요?', 'Run all that fit again?': '조건에 맞는 전체를 다시 실행할까요?', 'Counting…': '세는 중…', 'leaves this list and is not run again from here. It stays in the history.': '이 목록에서 빠지며 여기서 다시 실행되지 않습니다. 기록에는 남습니다.',
  // Queues, workers
  'Purge…': '비우기…', Purge: '비우기', 'nobody serves it': '처리하는 워커 없음', 'Nothing waits in the broker': '브로커에 대기 중인 메시지가 없습니다', 'What workers have, and what is held back, is not in the queue.': '워커가 가진 것과 보류된 것은 큐에 없습니다.', Place: '순서', Bytes: '바이트', show: '보기', 'First page': '첫 페이지', 'Next page': '다음 페이지', Heartbeat: '하트비트', Processed: '처리 건수', Pool: '풀', Load: '부하', Software: '소프트웨어', Inspect: '조회', Control: '제어', Command: '명령', Send: '보내기', 'Ask for': '조회할 항목', 'It runs nothing.': '실행 중인 작업이 없습니다.', online: '온라인', offline: '오프라인', 'all its tasks': '이 워커의 모든 작업', 'No worker was seen within the last day': '최근 하루 동안 워커가 보이지 않았습니다', 'The worker did not answer in time.': '워커가 제때 응답하지 않았습니다.', 'Shut down': '종료', 'It finishes what it runs and ends. Something else has to start it again.': '실행 중인 작업을 마치고 종료합니다. 다시 시작하려면 다른 수단이 필요합니다.', 'Running now': '지금 실행 중',
  // Schedules
  Timetable: '주기', Next: '다음', 'Next runs': '다음 실행', History: '기록', 'It has not fired yet.': '아직 실행된 적이 없습니다.', Due: '예정', Fired: '실행', Outcome: '결과', 'New schedule': '새 일정', 'There is no schedule yet': '아직 일정이 없습니다', 'A schedule submits a task or a canvas by cron, at an interval or once.': '일정은 cron, 일정한 간격 또는 한 번으로 작업이나 캔버스를 제출합니다.', 'The schedule as JSON: a signature with cron, every or at': 'JSON 형식의 일정: cron, every 또는 at이 있는 시그니처', 'It fires no more. Tasks that it submitted stay.': '더 이상 실행되지 않습니다. 이미 제출한 작업은 남습니다.',
  // Incidents
  Since: '시작', Kind: '종류', Subject: '대상', What: '내용', 'Nothing is wrong now': '지금은 문제가 없습니다', 'Silent workers, queues that nobody serves, tasks over their budget and a stuck outbox would be listed here.': '응답 없는 워커, 처리하는 워커가 없는 큐, 제한을 넘긴 작업, 막힌 발신함이 여기에 표시됩니다.', 'silent worker': '응답 없는 워커', 'over its budget': '제한 초과', 'outbox stuck': '발신함 막힘',
  // Webhooks
  Webhooks: '웹훅', 'Where to': '주소', 'Of what': '알림 대상', State: '상태', on: '켜짐', off: '꺼짐', 'Switch off': '끄기', 'Switch on': '켜기', Tries: '시도', 'Send again': '다시 보내기', 'Nothing was sent yet.': '아직 보낸 것이 없습니다.', Registered: '등록됨', Register: '등록', 'New webhook': '새 웹훅', 'This is the only time that its secret is shown:': '비밀 값은 지금 한 번만 표시됩니다:', 'Nobody is told anything yet': '아직 알림을 받는 곳이 없습니다',
  // Audit
  When: '시각', Who: '누가', 'On what': '대상', Verdict: '판정', From: '어디서', 'under way': '진행 중', 'Nobody has controlled anything yet': '아직 제어한 기록이 없습니다', 'Every revoke, retry, pause and change is written here, with who did it and what came of it.': '모든 취소, 재시도, 일시 중지, 변경이 누가 했고 어떻게 되었는지와 함께 기록됩니다.', 'The rows are chained by hashes.': '행은 해시로 이어져 있습니다.', 'says whether one was changed.': '명령이 변경 여부를 알려 줍니다.',
};
