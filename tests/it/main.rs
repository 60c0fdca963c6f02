//! Integration tests against the real peers, in one binary so that they can share them.

#![expect(clippy::disallowed_methods, reason = "tests have clocks, ids and threads of their own")]

mod harness;

mod boundaries;
mod chaos;
mod clients;
mod clients_browser;
mod clients_contract;
mod clients_examples;
mod conformance;
mod control;
mod dashboard;
mod dev;
mod dev_samples;
mod documents;
mod edge;
mod edge_limits;
mod explain;
mod faults;
mod faults_canvas;
mod faults_crash;
mod faults_incidents;
mod faults_keys;
mod faults_patience;
mod faults_recorder;
mod faults_redis;
mod faults_retention;
mod faults_sse;
mod faults_steps;
mod faults_sweeper;
mod faults_unannounced;
mod faults_workers;
mod fleets;
mod history;
mod interop;
mod library;
mod packaging;
mod peers;
mod progress;
mod publish;
mod readme;
mod refusals;
mod reruns;
mod resp;
mod samples;
mod schedules;
mod schedules_import;
mod startup;
mod swagger;
mod versions;
mod watching;
mod worker;
