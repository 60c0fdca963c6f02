//! Swagger UI in a real browser, without any other host: it shows the catalog's entries, and one can be tried out (row O4).

use crate::dashboard::browser::Browser;
use crate::dev::Dev;

/// The block of `POST /add`, unfolded or not.
const BLOCK: &str = "[...document.querySelectorAll('.opblock-post')].find((block) => \
    block.querySelector('.opblock-summary-path')?.dataset.path === '/add')";

#[tokio::test]
async fn a_task_is_submitted_from_swagger_ui_offline() {
    let dev = Dev::start();
    let browser = Browser::start(1400, 900).await;
    browser.open(&format!("http://127.0.0.1:{}/swagger-ui/", dev.gateway.port)).await;
    browser.wait_for("the operation is listed", &format!("Boolean({BLOCK})")).await;
    press(&browser, ".opblock-summary-control").await;
    press(&browser, ".execute").await;
    let status = format!("({BLOCK}).querySelector('.live-responses-table tbody .response-col_status')?.innerText");
    let status = browser.wait_for("the answer is shown", &status).await;
    assert!(status.as_str().is_some_and(|text| text.starts_with("202")), "{status}");
    let listed = dev.http.get("/v1/tasks?task=tasks.add").await.expect(200);
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(1), "{listed}");
    let others = "performance.getEntriesByType('resource').map(({ name }) => name) \
        .filter((name) => !name.startsWith(location.origin) && !name.startsWith('data:'))";
    assert_eq!(browser.run(&format!("return {others}")).await, serde_json::json!([]));
    browser.keep("swagger-ui").await;
}

async fn press(browser: &Browser, selector: &str) {
    let found = format!("({BLOCK}).querySelector('{selector}')");
    browser.wait_for(&format!("{selector} is there"), &format!("Boolean({found})")).await;
    browser.run(&format!("{found}.click()")).await;
}
