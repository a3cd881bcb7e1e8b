// The table of an exchange's life, without connections: all sequences of events up to a depth, and all states that can be reached.

import t from 'tap'
import { CLAIMED, type Event, type Order, type Stage, TABLE } from '../../lib/exchange/life.ts'

const EVENTS = [...new Set(TABLE.map(([event]) => event))]

/** Orders that end an exchange: onResponse, the log line, and what it held is released. */
const ENDS = new Set<Order>(['finish', 'finishAnswered', 'cutOff', 'leave'])

/** After the end: the user who has the connection is still told that the app closes. */
const AFTERWARDS = new Set<Order>(['sayGoodbye', 'destroySocket'])

/** What has happened along a sequence of events. */
interface Past {
  ended: boolean
  headWritten: boolean
  firstByte: boolean
  requestEnded: boolean
}

/** @returns what is wrong with these orders; null if nothing */
function wrongOrder (orders: readonly Order[], before: Stage, after: Stage, past: Past): string | null {
  for (const order of orders) {
    if (past.ended && !(AFTERWARDS.has(order) && after.connection === 'detached')) return `${order} after the end`
    if (ENDS.has(order)) past.ended = true
    if (order === 'takeBack' && (past.firstByte || !past.headWritten)) return 'takeBack of nothing, or of what was sent'
    if ((order === 'answer' || order === 'failNow') && past.firstByte) return `${order} behind a head`
    if (order === 'finish' && !(past.firstByte && after.response === 'complete')) return 'finish of an incomplete response'
    if (order === 'finishAnswered' && past.firstByte) return 'the answer of other code behind our head'
    if (order === 'cutOff' && before.connection !== 'held') return 'cut off twice'
    if (order === 'endRequest' && past.requestEnded) return 'endRequest twice'
    if (order === 'endRequest') past.requestEnded = true
  }
  return null
}

/** Goes on from a stage with every event. @returns the number of sequences */
function explore (stage: Stage, past: Past, depth: number, path: Event[]): number {
  if (depth === 0) return 1
  let sequences = 0
  for (const event of EVENTS) {
    const { stage: next, orders } = stage.after(event)
    const present = { ...past }
    const wrong = wrongOrder(orders, stage, next, present)
    const trace = (): string => [...path, event].join(', ')
    if (wrong !== null) throw new Error(`${wrong}: ${trace()}`)
    if (present.ended === (next.connection === 'held')) throw new Error(`the connection is ${next.connection}: ${trace()}`)
    present.headWritten = next.response === 'written'
    present.firstByte ||= next.response === 'begun'
    if (stage.connection !== 'held' && next.connection !== stage.connection) throw new Error(`an end that changes: ${trace()}`)
    if (present.firstByte && (next.response === 'none' || next.response === 'from Fastify')) throw new Error(`a first byte that is forgotten: ${trace()}`)
    path.push(event)
    sequences += explore(next, present, depth - 1, path)
    path.pop()
  }
  return sequences
}

t.test('all sequences of events', (t) => {
  const sequences = explore(CLAIMED, { ended: false, headWritten: false, firstByte: false, requestEnded: false }, 5, [])
  t.equal(sequences, EVENTS.length ** 5)
  t.comment(`${sequences} sequences of 5 out of ${EVENTS.length} events`)
  t.end()
})

/** All stages that can be reached. */
function reachable (): Set<Stage> {
  const stages = new Set<Stage>([CLAIMED])
  for (const stage of stages) for (const event of EVENTS) stages.add(stage.after(event).stage)
  return stages
}

/** @param answered whether Fastify answers if it is told to answer now. Otherwise the exchange is cut off */
function idle (stage: Stage, answered: boolean): Stage {
  const { stage: next, orders } = stage.after('idle')
  return orders.includes('failNow') ? next.after(answered ? 'Fastify answers' : 'stuck').stage : next
}

t.test('every state', async (t) => {
  const stages = reachable()
  t.comment(`${stages.size} states can be reached`)
  for (const stage of stages) {
    if (stage.connection !== 'held') continue
    const { request, response, handler, goodbye } = stage
    const name = `request ${request}, response ${response}, handler ${handler}, goodbye ${goodbye}`
    // Nobody acts but the timers. `idle` comes again after each further idleTimeout.
    for (const answered of [false, true]) {
      t.not(idle(idle(idle(stage, answered), answered), answered).connection, 'held', `${name}: idleTimeout ends it`)
      t.not(idle(idle(stage.after('app closes').stage.after('grace over').stage, answered), answered).connection, 'held', `${name}: so does closing`)
    }
    t.not(stage.after('stuck').stage.connection, 'held', `${name}: idleTimeout ends it before its turn`)
    t.equal(stage.after('client gone').stage.connection, 'lost', name)
    if (response === 'complete') t.not(stage.after('app closes').stage.connection, 'held', `${name}: an app that closes needs no reader any more`)
  }
  t.notOk([...stages].some(({ request, response, connection }) => connection === 'held' && response === 'complete' && request === 'complete'), 'both halves complete: it has ended')
  t.notOk([...stages].some(({ response, connection }) => connection === 'ending' && (response === 'written' || response === 'begun')), 'no connection is returned in the middle of a response')
})

t.test('every row applies somewhere', async (t) => {
  const used = new Set<unknown>()
  for (const stage of reachable()) {
    for (const event of EVENTS) {
      const row = TABLE.find(([name, when]) => name === event && Object.entries({ connection: 'held', ...when }).every(([part, value]) => stage[part as keyof Stage] === value))
      if (row !== undefined) used.add(row)
    }
  }
  t.strictSame(TABLE.filter((row) => !used.has(row)), [])
})
