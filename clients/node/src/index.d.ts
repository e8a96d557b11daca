// SPDX-License-Identifier: Apache-2.0

/** One call of the function, or one run's record at one of its stages. */
export interface Request {
  /** Unique while the channel lives; a run's is the same at each stage. */
  id: bigint;
  /** Nanoseconds since 1970; 0 for none. */
  deadlineNs: bigint;
  /** 1, or more when it was delivered before and not answered. */
  attempt: number;
  /** The W3C `traceparent`, or nothing. */
  trace: string;
  method: string;
  data: Buffer;
  /** Whose stage this is. */
  pipeline?: string;
  stage?: string;
  /** What each input of a stage that has several brought, in their order. */
  parts?: Buffer[];
  /** Call another function within this request's deadline; rejects with a CallError. */
  call(name: string, data: Bytes): Promise<Buffer>;
}

type Bytes = Uint8Array | string;
export type Handler = (data: Buffer, request: Request) => Bytes | Promise<Bytes>;

/** Answer a channel's calls; rejects with what another try can't help. */
export function serve(
  handler: Handler | Record<string, Handler>,
  options?: { path?: string },
): Promise<never>;

/**
 * Call another function, by its name or as "function/method"; rejects with a CallError. The timeout
 * is in milliseconds; without one it is waited for as long as the attachment lasts.
 */
export function call(
  name: string,
  data: Bytes,
  options?: { timeout?: number; trace?: string },
): Promise<Buffer>;

/** Attach once, to a side socket or to what AETHER_CHANNEL names. */
export function attach(path?: string): Channel;

export interface RingRecord {
  type: number;
  payload: Buffer;
}

/** One attachment. */
export class Channel {
  private constructor();
  readonly generation: number;
  readonly largest: number;
  receive(): Promise<RingRecord>;
  publish(payload: Uint8Array, type: number, until?: number): Promise<void>;
  close(): void;
}

/** What is refused; `code` is the contract's word for it. */
export class AetherlessError extends Error {
  readonly code: string;
}

/** Why a call of another function has no result. */
export class CallError extends AetherlessError {
  readonly function: string;
  /** What its handler, or the service, says of it. */
  readonly detail: string;
}

/** What of the other side's writing can't be. */
export class CorruptError extends AetherlessError {
  readonly fault: 'index' | 'length' | 'sequence' | 'checksum';
  readonly expected: bigint;
  readonly actual: bigint;
}

export const Direction: { readonly TO_PEER: 0; readonly FROM_PEER: 1 };
export const RecordType: {
  readonly USER: 0;
  readonly REQUEST: 1;
  readonly RESPONSE: 2;
  readonly PING: 3;
  readonly PONG: 4;
  readonly SHUTDOWN: 5;
  readonly CALL: 6;
  readonly OVER: 7;
};
export const Status: {
  readonly RESULT: 0;
  readonly FAILED: 1;
  readonly NO_METHOD: 2;
  readonly DEADLINE_PASSED: 3;
  readonly NOT_ALLOWED: 4;
  readonly NO_FUNCTION: 5;
  readonly NOT_DELIVERED: 6;
  readonly NO_ROOM: 7;
  readonly PASSED_ON: 8;
  readonly DAMAGED: 9;
};

/** The ring's ends over memory that is mapped already. `doze` is true when one may sleep. */
export class Producer {
  constructor(memory: ArrayBuffer, direction: 0 | 1, ringBytes: number, bell?: number);
  publish(payload: Uint8Array, type?: number): boolean;
  doze(length: number): boolean;
}

export class Consumer {
  constructor(memory: ArrayBuffer, direction: 0 | 1, ringBytes: number, bell?: number);
  receive(): RingRecord | undefined;
  doze(): boolean;
}
