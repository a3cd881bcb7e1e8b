// Nodes to run the suite with, from the packages that hold one binary each.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { satisfies } from 'semver'
import { MINUTE, npm, run } from './commands.ts'

const INSTALL_LIMIT = 5 * MINUTE

export interface Node { path: string, version: string }

/** A Node of that version or range; the running one if there is no package for this platform, and null if that is of another version. */
export async function installNode (wanted: string, root: string): Promise<Node | null> {
  const directory = join(root, `node-${wanted}`)
  await mkdir(directory)
  const isWindows = process.platform === 'win32'
  const name = `node-${isWindows ? 'win' : process.platform}-${process.arch}`
  const { code } = await npm(['install', '--prefix', directory, '--no-save', '--no-package-lock', '--no-audit', '--no-fund', `${name}@${wanted}`], { cwd: directory, limit: INSTALL_LIMIT })
  const path = join(directory, 'node_modules', name, 'bin', isWindows ? 'node.exe' : 'node')
  if (code === 0) {
    // With another C library than that of the package it does not start.
    const started = await run(path, ['--version'], { cwd: directory, limit: MINUTE }).catch(() => null)
    if (started?.code === 0) return { path, version: started.printed.trim().slice(1) }
  }
  if (satisfies(process.version, wanted)) {
    console.log(`${name}@${wanted} cannot be had: the running Node ${process.version} stands in`)
    return { path: process.execPath, version: process.version.slice(1) }
  }
  console.log(`SKIPPED: ${name}@${wanted} cannot be had, and the running Node is ${process.version}`)
  return null
}
