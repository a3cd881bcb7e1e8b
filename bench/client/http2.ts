// HTTP/2 (RFC 9113) with prior knowledge. It uses one stream at a time, and only as much flow control as that needs.

import type { Protocol, ResponseEvents, Session } from './session.ts'

const DATA = 0
const HEADERS = 1
const RST_STREAM = 3
const SETTINGS = 4
const PING = 6
const GOAWAY = 7
const WINDOW_UPDATE = 8

const END_STREAM = 1
const ACK = 1
const END_HEADERS = 4

const FRAME_HEAD = 9
const MAX_FRAME = 16384
const INITIAL_WINDOW = 65535
const LARGEST_WINDOW = 2 ** 31 - 1
/** After so many bytes of content the client sends WINDOW_UPDATE. */
const UPDATE_WINDOW_AFTER = 2 ** 29

const SETTINGS_INITIAL_WINDOW_SIZE = 4
/** `:status: 200` in HPACK's static table. */
const STATUS_200 = 0x88

class Http2Session implements Session {
  readonly willClose = false
  private readonly events: ResponseEvents
  private readonly reply: (bytes: Buffer) => void
  private readonly onCredit: () => void
  private readonly frameHead = Buffer.alloc(FRAME_HEAD)
  private headLength = 0
  private left = 0 //                  bytes of the payload that are still to come
  private payload: number[] = [] //    of a frame other than DATA
  private window = INITIAL_WINDOW //   of the connection
  private streamWindow = INITIAL_WINDOW
  private initialWindow = INITIAL_WINDOW
  private received = 0
  private headCame = false

  constructor (events: ResponseEvents, reply: (bytes: Buffer) => void, onCredit: () => void) {
    this.events = events
    this.reply = reply
    this.onCredit = onCredit
  }

  get credit (): number {
    return Math.min(this.window, this.streamWindow)
  }

  consumeCredit (size: number): void {
    this.window -= size
    this.streamWindow -= size
  }

  read (bytes: Buffer, length: number): void {
    let at = 0
    while (at < length) {
      if (this.headLength < FRAME_HEAD) {
        this.frameHead[this.headLength++] = bytes[at++]
        if (this.headLength < FRAME_HEAD) continue
        this.left = this.frameHead.readUIntBE(0, 3)
      } else {
        const to = Math.min(length, at + this.left)
        if (this.frameHead[3] === DATA) this.onData(bytes, at, to)
        else for (let i = at; i < to; i++) this.payload.push(bytes[i])
        this.left -= to - at
        at = to
      }
      if (this.left === 0) this.onFrame(this.frameHead[3], this.frameHead[4])
    }
  }

  private onData (bytes: Buffer, from: number, to: number): void {
    this.events.onData(bytes, from, to)
    this.received += to - from
    if (this.received < UPDATE_WINDOW_AFTER) return
    this.reply(Buffer.concat([windowUpdate(0, this.received), windowUpdate(1, this.received)]))
    this.received = 0
  }

  private onFrame (type: number, flags: number): void {
    const payload = Buffer.from(this.payload)
    const stream = this.frameHead.readUInt32BE(5)
    this.headLength = this.payload.length = 0
    switch (type) {
      case HEADERS:
        if (!this.headCame && payload[0] !== STATUS_200) throw new Error('The status is not 200')
        this.headCame = true // the next one has trailers
        break
      case SETTINGS:
        if ((flags & ACK) === 0) this.onSettings(payload)
        return
      case PING:
        if ((flags & ACK) === 0) this.reply(frame(PING, ACK, 0, payload))
        return
      case WINDOW_UPDATE:
        if (stream === 0) this.window += payload.readUInt32BE()
        else this.streamWindow += payload.readUInt32BE()
        this.onCredit()
        return
      case RST_STREAM:
        // RST_STREAM with NO_ERROR may follow a complete response (RFC 9113 section 8.1).
        if (payload.readUInt32BE() !== 0) throw new Error('The server reset the stream')
        return
      case GOAWAY:
        throw new Error(`The server sent GOAWAY: ${payload.toString('latin1', 8)}`)
    }
    if ((flags & END_STREAM) === 0) return
    this.headCame = false
    this.events.onEnd()
  }

  private onSettings (payload: Buffer): void {
    for (let at = 0; at < payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== SETTINGS_INITIAL_WINDOW_SIZE) continue
      const size = payload.readUInt32BE(at + 2)
      this.streamWindow += size - this.initialWindow
      this.initialWindow = size
    }
    this.reply(frame(SETTINGS, ACK, 0))
    this.onCredit()
  }
}

function frame (type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(FRAME_HEAD)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

function windowUpdate (stream: number, size: number): Buffer {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(size)
  return frame(WINDOW_UPDATE, 0, stream, payload)
}

const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(SETTINGS, 0, 0, Buffer.from([0, SETTINGS_INITIAL_WINDOW_SIZE, 0x7f, 0xff, 0xff, 0xff])),
  windowUpdate(0, LARGEST_WINDOW - INITIAL_WINDOW)
])

/** The request head in HPACK. Fields that are in the static table are indexed. */
function headers (path: string, hasBody: boolean, stream: number, fields: Buffer[] = []): Buffer {
  const method = hasBody ? 0x83 : 0x82
  const block = [Buffer.from([method, 0x86]), literal(4, path), literal(1, 'bench'), ...fields]
  return frame(HEADERS, hasBody ? END_HEADERS : END_HEADERS | END_STREAM, stream, Buffer.concat(block))
}

function literal (name: number, value: string): Buffer {
  return Buffer.concat([Buffer.from([name, value.length]), Buffer.from(value)])
}

function newLiteral (name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)])
}

export const http2: Protocol = {
  createSession: (events, reply, onCredit) => new Http2Session(events, reply, onCredit),
  maxChunk: MAX_FRAME,
  encodeHead: (path, hasBody) => Buffer.concat([PREFACE, headers(path, hasBody, 1)]),
  encodeChunk: (content) => frame(DATA, 0, 1, content),
  lastChunk: frame(DATA, END_STREAM, 1),
  encodeExchange (path, content, index) {
    const stream = 2 * index + 1
    const request = Buffer.concat([headers(path, true, stream), frame(DATA, END_STREAM, stream, content)])
    return index === 0 ? Buffer.concat([PREFACE, request]) : request
  }
}

const GRPC_FIELDS = [newLiteral('content-type', 'application/grpc'), newLiteral('te', 'trailers')]

/** gRPC over HTTP/2: a chunk is a DATA frame, which may hold several messages. */
export const grpc: Protocol = {
  ...http2,
  encodeHead: (path) => Buffer.concat([PREFACE, headers(path, true, 1, GRPC_FIELDS)])
}
